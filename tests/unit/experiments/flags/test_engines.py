"""Tenants' flags side by side: whose rules an engine holds, how many engines there are, what becomes of a refused document."""

import threading
from dataclasses import replace

import orjson
import pytest

from app.errors import InvalidInput
from app.experiments.flags.building import FlagBuilder
from app.experiments.flags.context import check_attributes, context_of
from app.experiments.flags.document import FlagsRefused
from app.experiments.flags.engine import Engine
from app.experiments.flags.engines import Engines
from app.experiments.types import DecisionReason, TargetingRule
from tests.unit.experiments.flags.making import CONTROL, UNITS, decisions, experiment

pytestmark = pytest.mark.unit


def names_of(engine):
    return {toggle.name for toggle in engine._engine.list_known_toggles()}


def test_a_tenants_engine_never_holds_anothers_rules():
    build = FlagBuilder()
    clinic = build("clinic", [experiment("of-clinic", targeting=[TargetingRule("ward", "IN", ("oncology",))])], 5.0, 1)
    bank = build("bank", [experiment("of-bank", layer="credit")], 0.0, 1)
    assert names_of(build.engines.of(clinic._own)) == {"holdout", "gate.of-clinic", "experiment.of-clinic", "twin.of-clinic"}
    assert names_of(build.engines.of(bank._own)) == {"layer.credit", "experiment.of-bank"}
    assert b"oncology" not in bank._own.to_json()
    assert b"bank" not in clinic._own.to_json()
    assert bank.decide("churn", UNITS[0], {"ward": "oncology"}).experiment == "of-bank"


def test_least_recently_asked_engines_are_dropped_and_answers_stay_the_same():
    build = FlagBuilder(Engines(most=2))
    tenants = [build(f"tenant-{number}", [experiment(f"exp-{number}", rollout=50.0)], 0.0, 1) for number in range(5)]
    before = [decisions(each, UNITS[:50]) for each in tenants]
    assert len(build.engines) == 2
    assert [decisions(each, UNITS[:50]) for each in reversed(tenants)] == before[::-1]
    assert len(build.engines) == 2


def test_the_engine_that_was_asked_last_is_kept():
    engines = Engines(most=2)
    documents = [FlagBuilder()("t", [experiment(f"exp-{number}")], 0.0, 1)._own for number in range(3)]
    first = engines.of(documents[0])
    engines.of(documents[1])
    assert engines.of(documents[0]) is first
    third = engines.of(documents[2])
    assert engines.of(documents[2]) is third
    assert engines.of(documents[0]) is first
    engines.drop(documents[0])
    assert engines.of(documents[0]) is not first


def test_a_refused_document_leaves_what_decided_before():
    build = FlagBuilder()
    good = experiment(rollout=50.0)
    flags = build("clinic", [good], 0.0, 1)
    before = decisions(flags, UNITS[:500])
    with pytest.raises(FlagsRefused):
        build("clinic", [replace(good, rollout=33.33333)], 0.0, 2)
    assert decisions(flags, UNITS[:500]) == before


def test_an_engine_that_fails_its_test_never_decides(monkeypatch):
    monkeypatch.setattr(Engine, "ask", lambda self, flag, context: None)
    with pytest.raises(FlagsRefused, match="is not decided as it is written"):
        FlagBuilder()("clinic", [experiment()], 0.0, 1)


def test_threads_that_ask_one_engine_get_what_one_thread_gets():
    flags = FlagBuilder(Engines(most=1))("clinic", [experiment(rollout=50.0)], 10.0, 1)
    expected = decisions(flags, UNITS[:1_000])
    found = [None] * 4

    def ask(number):
        found[number] = decisions(flags, UNITS[:1_000])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_the_context_has_the_tokens_tenant_and_the_units_hash_whatever_the_caller_says():
    claimed = {"tenantId": "bank", "userId": "another", "environment": "x", "properties": "x", "country": "NO"}
    assert orjson.loads(context_of("clinic", "hash", claimed)) == {"userId": "hash", "properties": {"country": "NO", "tenantId": "clinic"}}
    assert orjson.loads(context_of("clinic", "hash", None)) == {"userId": "hash", "properties": {"tenantId": "clinic"}}


@pytest.mark.parametrize(
    "name", ["tenantId", "userId", "environment", "sessionId", "currentTime", "remoteAddress", "appName", "properties"]
)
def test_an_attribute_that_the_service_sets_is_refused(name):
    with pytest.raises(InvalidInput, match=f"'{name}' is set by the service and never by the caller"):
        check_attributes({name: "x"})


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ([], "must be an object of texts"),
        ("country", "must be an object of texts"),
        ({"age": 41}, "'age' must be a text of at most 256 characters"),
        ({"age": None}, "'age' must be a text"),
        ({"plan": "x" * 257}, "'plan' must be a text of at most 256 characters"),
        ({"plan": "\ud800"}, "'plan' must be a text"),
        ({"plan": "a\0b"}, "'plan' must be a text"),
        ({"": "x"}, "a name must be a text of 1 to 256"),
        ({"n" * 257: "x"}, "a name must be a text of 1 to 256"),
        ({str(number): "x" for number in range(51)}, "has 51 entries; at most 50"),
    ],
)
def test_attributes_are_few_short_texts(attributes, why):
    with pytest.raises(InvalidInput, match=why):
        check_attributes(attributes)


def test_good_attributes_are_taken_as_they_are():
    assert check_attributes({"country": "NO", "appVersion": "3.2.0"}) == {"country": "NO", "appVersion": "3.2.0"}
    assert check_attributes({}) is None
    assert check_attributes(None) is None


def test_flags_without_experiments_hold_no_engine():
    build = FlagBuilder()
    assert build("clinic", [], 0.0, 1).decide("churn", UNITS[0], None) is None
    assert len(build.engines) == 0
    assert build("clinic", [experiment(variants=(CONTROL,))], 0.0, 1).decide("churn", UNITS[0], None).reason is DecisionReason.EXPERIMENT
