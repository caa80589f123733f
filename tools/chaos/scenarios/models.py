"""Rows 18 to 24: artifacts that are damaged or hostile, models that eat, hang, lie or die."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from tools.chaos.faults import until
from tools.chaos.figures import stretch
from tools.chaos.rows import Claim, Row, by_tests
from tools.chaos.scenarios.common import NOISE_MS, answered, clean, not_slower, within
from tools.chaos.wild import DIES, EATS, HANGS, NAN, SLOW, tame, wild_artifact
from tools.chaos.world import DEADLINE_S, MODEL, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.chaos.load import Load
    from tools.chaos.rows import Stage
    from tools.chaos.world import World

MOST_DEATHS = 2
_TYPED = {"MODEL_FAILED", "MODEL_UNAVAILABLE", "DEADLINE_EXCEEDED"}
_FALL_BACK = "mutation($name: String!, $input: UpdateModelInput!) { updateModel(name: $name, input: $input) { name } }"
_ASK = """query($model: String!, $row: FeatureRow!) { predict(model: $model, features: $row) {
  id version reason degraded probabilities { probability } } }"""


@contextmanager
def _wild(stage: Stage, label: str) -> Iterator[tuple[World, Load, float]]:
    """The trusting world under load, its models `wild` (whose fallback is its tame first version) and `alone` (without one) beside."""
    world = stage.world(Kind.TRUSTING)
    tenant = world.tenants["north"]
    if len(tenant.ask("{ models { edges { node { name } } } }")["models"]["edges"]) == 2:
        sample = [[0.1 * number, 0.2, 0.3] for number in range(8)]
        tenant.ready("wild", "CLASSIFICATION", tame())
        for name in ("wild", "alone"):
            tenant.serve(name, "CLASSIFICATION", wild_artifact(), sample=sample)
        tenant.ask(_FALL_BACK, name="wild", input={"fallback": {"kind": "VERSION", "version": 1}})
    with world.load(label) as load:
        time.sleep(stage.seconds)
        yield world, load, time.monotonic()


@dataclass(frozen=True, slots=True)
class Poke:
    """One request that asked a model for trouble: the error's code, or how it was routed; seconds; the raw answer."""

    said: str
    took_s: float
    raw: bytes


def _poke(world: World, model: str, first: float, second: float = 0.2) -> Poke:
    """On a connection of its own, whose making takes no time to speak of."""
    body = json.dumps({"query": _ASK, "variables": {"model": model, "row": [first, second, 0.3]}})
    headers = {"Authorization": f"Bearer {world.tenants['north'].token}", "Content-Type": "application/json"}
    connection = HTTPConnection("127.0.0.1", world.port, timeout=30)
    began = time.monotonic()
    try:
        connection.request("POST", "/graphql", body, headers)
        raw = connection.getresponse().read()
    finally:
        connection.close()
    took_s, answer = time.monotonic() - began, json.loads(raw)
    said = answer["errors"][0]["extensions"]["code"] if answer.get("errors") else answer["data"]["predict"]["reason"]
    return Poke(said, took_s, raw)


def _is_strict(raw: bytes) -> bool:
    """Whether it is JSON as the standard has it, without NaN and Infinity."""
    try:
        json.loads(raw, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(word: str) -> None:
    raise ValueError(word)


def _said(pokes: list[Poke]) -> str:
    said = [poke.said for poke in pokes]
    return ", ".join(f"{said.count(each)} {each}" for each in dict.fromkeys(said))


def _others(stage: Stage, world: World, load: Load, at: float, end: float) -> list[Claim]:
    """What everybody else noticed: nothing."""
    load.stop()
    during = stretch(load.between(at, end))
    claims = clean(stage, world, load.operations, only_logged_of=MODEL)
    return [answered(during), not_slower(stretch(load.between(0, at)), during, 1.2), *claims[1:]]


def eats_memory(stage: Stage) -> list[Claim]:
    with _wild(stage, "r21-") as (world, load, at):
        alone = [_poke(world, "alone", EATS, number) for number in range(6)]
        helped = [_poke(world, "wild", EATS, number) for number in range(6)]
        end = time.monotonic()
        well = until(lambda: _poke(world, "alone", 0.1).said == "ALIAS", 20, every_s=0.5)
        return [
            Claim({poke.said for poke in alone} <= _TYPED, f"without a fallback {_said(alone)}"),
            Claim({poke.said for poke in helped} == {"FALLBACK"}, f"with one {_said(helped)}"),
            within("its tame inputs answered again", well, 15.0),
            *_others(stage, world, load, at, end),
        ]


def hangs(stage: Stage) -> list[Claim]:
    with _wild(stage, "r22-") as (world, load, at):
        alone = [_poke(world, "alone", trouble, number) for trouble in (SLOW, HANGS) for number in range(2)]
        helped = [_poke(world, "wild", trouble, number) for trouble in (SLOW, HANGS) for number in range(2)]
        end = time.monotonic()
        well = until(lambda: _poke(world, "alone", 0.1).said == "ALIAS", 20, every_s=0.5)
        slowest = max(poke.took_s for poke in [*alone, *helped])
        return [
            Claim(
                slowest <= DEADLINE_S + 0.1 + NOISE_MS / 1000, f"slowest {slowest:.2f} s of a deadline of {DEADLINE_S:.0f} s", timed=True
            ),
            Claim({poke.said for poke in alone} <= _TYPED, f"without a fallback {_said(alone)}"),
            Claim({poke.said for poke in helped} <= {"FALLBACK", "DEADLINE_EXCEEDED"}, f"with one {_said(helped)}"),
            within("its tame inputs answered again", well, 15.0),
            *_others(stage, world, load, at, end),
        ]


def lies(stage: Stage) -> list[Claim]:
    with _wild(stage, "r23-") as (world, load, at):
        alone = [_poke(world, "alone", NAN, number) for number in range(4)]
        time.sleep(1.0)
        end = time.monotonic()
        nan = sum(not _is_strict(poke.raw) for poke in alone)
        return [
            Claim({poke.said for poke in alone} == {"MODEL_FAILED"}, f"{_said(alone)}"),
            Claim(nan == 0, f"{nan} answers with NaN in their JSON"),
            *_others(stage, world, load, at, end),
        ]


def poison(stage: Stage) -> list[Claim]:
    with _wild(stage, "r24-") as (world, load, at):
        before = world.metric("turnout_model_worker_deaths_total")
        pokes = [_poke(world, "alone", DIES) for _ in range(10)]
        tame = until(lambda: _poke(world, "alone", 0.1).said == "ALIAS", 20, every_s=0.5)
        end = time.monotonic()
        deaths = world.metric("turnout_model_worker_deaths_total") - before
        return [
            Claim({poke.said for poke in pokes} <= _TYPED, _said(pokes)),
            Claim(deaths <= MOST_DEATHS, f"{deaths:.0f} workers died on one input sent 10 times"),
            within("its tame inputs answered again", tame, 15.0),
            *_others(stage, world, load, at, end),
        ]


_WORKER = "tests/integration/worker"
ROWS = [
    Row(
        18,
        "artifact damaged: one bit flipped, cut short, other bytes than the sha256 says",
        "refused before it is parsed, not promoted; what serves serves on",
        "all of: refused, no parser called, the old version answers",
        by_tests(
            "tests/integration/registry/test_trust.py", f"{_WORKER}/test_serving.py", words="flipped_bit or damaged or not_the_digests"
        ),
    ),
    Row(
        19,
        "artifacts that attack when they are loaded: commands, files, secrets, sockets, signals, system calls",
        "refused by the list, and held by the locked child where the list is off",
        "every attack refused; canary file, socket, key file and the neighbour's model untouched",
        by_tests(
            f"{_WORKER}/test_lock.py", f"{_WORKER}/test_refusals.py", words="that_tries or system_call or not_on_the_list or environment"
        ),
    ),
    Row(
        20,
        "artifacts that are bombs: memory, compression, arrays, endless loading",
        "the child's memory limit and the deadline of loading",
        "every one refused with its reason; the service's own process untouched",
        by_tests(
            f"{_WORKER}/test_lock.py",
            f"{_WORKER}/test_refusals.py",
            f"{_WORKER}/test_skops.py",
            words="bomb or endless_loop_at_load or beyond_the_memory",
        ),
    ),
    Row(
        21,
        "a model that eats memory when it is asked",
        "its child dies and is replaced; breaker of that version; fallback",
        "typed errors, or the fallback's answers where there is one; tame inputs answered in 15 s; others ≥ 99.9 %, p99 < 1.2×; checker 0",
        eats_memory,
    ),
    Row(
        22,
        "a model that takes 10 s, or never answers",
        "an error at the request's deadline; the child is killed; fallback",
        "no answer later than the deadline + 100 ms; tame inputs answered in 15 s; others ≥ 99.9 %, p99 < 1.2×; checker 0",
        hangs,
    ),
    Row(
        23,
        "a model whose probabilities are NaN",
        "MODEL_FAILED, no NaN in JSON",
        "100 % typed errors; others ≥ 99.9 %, p99 < 1.2×; checker 0",
        lies,
    ),
    Row(
        24,
        "an input that kills the worker, sent 10 times",
        "quarantined by its hash: MODEL_FAILED with the reason",
        "≤ 2 deaths; tame inputs answered in 15 s; others ≥ 99.9 %, p99 < 1.2×; checker 0",
        poison,
    ),
]
