"""Sums are those of the rows, in whatever order these came, and the same bytes when made anew."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from app.experiments.outcome_rules import OutcomeToRecord
from app.experiments.rebuild import rebuild
from tests.integration.experiments.truth import assert_sums_are_the_rows
from tests.integration.experiments.world import METRICS, World, open_world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.journal.types import PredictionRecord
    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration


def of_prediction(record: PredictionRecord, metric: str, value: float, **more: Any) -> OutcomeToRecord:
    return OutcomeToRecord(metric, value, prediction_id=str(record.id), **more)


def random_life(world: World, rng: random.Random) -> list[Callable[[], Awaitable[Any]]]:
    """Everything that happens to 60 units, as deeds that may be done in any order."""
    deeds: list[Callable[[], Awaitable[Any]]] = []
    records = []
    for _ in range(160):
        world.clock.advance(rng.choice([0, 0, 0.001, 60, 3600]))
        experiment = rng.choice(["colour", "colour", "size"])
        score = rng.choice([None, rng.gauss(50, 20), rng.random() * 1e-7, 1 / 3])
        unit, variant, reason = (
            f"u{rng.randrange(60)}",
            rng.choice(["control", "blue", "green"]),
            rng.choice([*["EXPERIMENT"] * 4, "FALLBACK"]),
        )
        records.append(world.prediction(unit, variant, experiment, score=score, reason=reason))
    now = world.clock.now()
    for number, record in enumerate(records):
        deeds += [lambda record=record: world.log(record)] * rng.choice([1, 1, 2])  # the drain may write twice
        if rng.random() < 0.7:
            said = world.covariate(record, rng.choice([None, rng.gauss(50, 20), 1e300, 0.1]), row=rng.choice([0, 0, 1]))
            deeds += [lambda said=said: world.log(said)] * rng.choice([1, 2])
        for _ in range(rng.choice([0, 1, 1, 3])):
            outcome = of_prediction(
                record, rng.choice(list(METRICS)), rng.choice([0.0, 1.0, rng.gauss(0, 1e5), rng.random() * 1e-9, 0.1]),
                idempotency_key=f"k{number}/{rng.random()}", occurred_at=rng.choice([record.at, record.at + (now - record.at) * rng.random()]),
            )  # fmt: skip
            deeds += [lambda outcome=outcome: world.outcomes.record(world.caller(), outcome)] * rng.choice([1, 1, 2])
        if rng.random() < 0.3:
            direct = OutcomeToRecord(
                rng.choice(list(METRICS)), rng.gauss(3, 1), unit=f"u{rng.randrange(80)}", idempotency_key=f"d{number}",
                occurred_at=now - timedelta(days=rng.random()),
            )  # fmt: skip
            deeds.append(lambda direct=direct: world.outcomes.record(world.caller(), direct))
    rng.shuffle(deeds)
    return deeds


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_order_of_arrival_the_sums_are_those_of_the_rows_and_rebuilding_gives_the_same_bytes(
    database_urls: DatabaseUrls, seed: int
) -> None:
    rng = random.Random(seed)
    world = await open_world(database_urls, batch=rng.choice([3, 17, 20_000]))
    world.metrics()
    world.experiment("colour")
    world.experiment(
        "size", variants=[{**arm, "control": arm["name"] == "green"} for arm in _arms()], secondary_metrics=["bought"], guardrails=[]
    )
    for deed in random_life(world, rng):
        await deed()
        if rng.random() < 0.1:
            assert await world.folder.fold(world.tenant_id)
    assert await world.folder.fold(world.tenant_id)

    folded = world.sums()
    assert world.ask("select 1 from outcomes where pending") == []
    assert_sums_are_the_rows(world, "colour", list(METRICS))
    assert len(folded["values"]) > 50
    assert sum(row[4] != "0" for row in folded["sums"]) > 5
    await rebuild(world.database, world.keys, world.tenant_id, batch=rng.choice([7, 20_000]))
    assert world.sums() == folded
    await world.close()


def _arms() -> list[dict[str, Any]]:
    from tests.integration.experiments.world import ARMS

    return ARMS
