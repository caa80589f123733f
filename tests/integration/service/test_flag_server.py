"""A flag server beside a real service of two processes: its flags decide, its silence and its rubbish change nobody's arm."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.service.test_experiments import Log, ask, everywhere, three_versions
from tests.support.flag_server import FlagServer
from tests.support.service import own_service
from tests.support.unleash_features import document, feature, on, strategy, variant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.service import Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("flag_server")]

V1, V2 = variant("v1", 500, {"version": 1, "control": True}), variant("v2", 500, {"version": 2})


@pytest.fixture(scope="module")
def flags() -> Iterator[FlagServer]:
    server = FlagServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def serving(flags: FlagServer) -> Iterator[Service]:
    settings = {"TURNOUT_UNLEASH_URL": flags.url, "TURNOUT_UNLEASH_TOKEN": "default:development.x", "TURNOUT_UNLEASH_REFRESH_S": "1"}
    with own_service("--workers", "2", **settings) as running:
        yield running


def health(service: Service) -> dict[str, Any]:
    return httpx.get(f"{service.url}/health", timeout=10).json()["flags"]


def test_flags_of_a_server_decide_and_are_an_experiment_and_nobody_changes_arm_whatever_the_server_does(
    serving: Service, flags: FlagServer
) -> None:
    admin = three_versions(serving, "product")
    units = [f"u{n}" for n in range(30)]
    assert ask(admin, "u1")["reason"] == "ALIAS"  # it answers 503: no request waits for it, and none fails

    flags.give(document(feature("model.m", strategy(on("product"), group="model.m", variants=[V1, V2])), revision=7))
    everywhere(admin, lambda answer: answer["reason"] == "EXPERIMENT")
    everywhere(admin, lambda answer: answer["reason"] == "EXPERIMENT", unit="u1")
    arms = {unit: (a["variant"], a["version"], a["experiment"]) for unit in units for a in [ask(admin, unit)]}
    assert set(Counter(arms.values())) == {("v1", 1, "unleash-m"), ("v2", 2, "unleash-m")}
    told = health(serving)
    assert (told["status"], told["source"], told["revision"], told["silent"], told["refused"]) == ("ok", "unleash", 7, False, False)

    for answer in ((200, b'{"version": 2, "features": [{"name": 5}]}'), (200, b"<html>"), (500, b"")):
        flags.answer = answer
        flags.await_polls(4)
        assert {unit: (a["variant"], a["version"], a["experiment"]) for unit in units for a in [ask(admin, unit)]} == arms

    flags.give(document(feature("model.m", strategy(on("product"), group="model.m", variants=[V1, V2]), enabled=False), revision=8))
    everywhere(admin, lambda answer: (answer["reason"], answer["version"]) == ("FLAG_OFF", 1))
    log = Log(serving, "product")
    rows = log.until(
        "select distinct reason, experiment, flag_revision from predictions where reason in ('EXPERIMENT', 'FLAG_OFF')",
        lambda rows: len(rows) >= 2,
    )
    assert set(rows) == {("EXPERIMENT", "unleash-m", 7), ("FLAG_OFF", "unleash-m", 8)}
    assert log.until("select status from experiments where key = 'unleash-m'", lambda rows: rows == [("STOPPED",)])
