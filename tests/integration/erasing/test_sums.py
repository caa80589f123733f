"""Units are erased in the middle of everything, and the sums stay those of the rows that are left, to the byte of a rebuild."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from app.experiments.forgetting import forget_units
from app.experiments.rebuild import rebuild
from app.journal.types import ERASURE_GRACE
from app.supervisor.sweeping import Sweeper
from app.tenancy import tombstones
from app.tenancy.types import Erasure
from tests.integration.experiments.test_folding import random_life
from tests.integration.experiments.truth import assert_sums_are_the_rows
from tests.integration.experiments.world import METRICS, World, open_world
from tests.support.database import execute

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration
OF_UNITS = ("exposure_queue", "covariate_queue", "exposures", "outcomes", "stale_units", "unit_values", "predictions", "shadow_answers")


async def erase(world: World, unit: str) -> int:
    """As the service does it: in one transaction."""
    at, hashes = world.clock.now(), [world.unit_hash(unit)]
    async with world.database.tenant_tx(world.tenant_id) as session:
        rows = await forget_units(session, world.tenant_id, hashes, at + ERASURE_GRACE)
        await tombstones.bury(session, world.tenant_id, hashes, Erasure(uuid4(), at, rows))
    return rows


async def sweep(world: World, home: Path) -> int:
    sweeper = Sweeper(world.urls.owner, home, world.clock)
    try:
        return sum([rows async for rows in sweeper.erased()])
    finally:
        await sweeper.close()


def kept_of(world: World, unit: str) -> dict[str, int]:
    """Rows by table."""
    count = "select count(*) from {} where tenant_id = $1 and unit_hash = $2"
    unit_hash = world.unit_hash(unit)
    found = {table: execute(world.urls.superuser, count.format(table), world.tenant_id, unit_hash)[0][0] for table in OF_UNITS}
    return {table: rows for table, rows in found.items() if rows}


@pytest.mark.parametrize("seed", range(4))
async def test_whenever_units_are_erased_the_sums_are_those_of_the_rows_that_are_left_and_a_rebuild_gives_the_same_bytes(
    database_urls: DatabaseUrls, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    world = await open_world(database_urls, batch=rng.choice([3, 17, 20_000]))
    world.metrics()
    world.experiment("colour")
    world.experiment("size", secondary_metrics=["bought"], guardrails=[])
    deeds = random_life(world, rng)
    erased: list[str] = []
    for number, deed in enumerate(deeds):
        await deed()
        if rng.random() < 0.1:
            assert await world.folder.fold(world.tenant_id)
        if number % (len(deeds) // 12) == 7:
            erased.append(f"u{rng.randrange(60)}")
            await erase(world, erased[-1])
        if rng.random() < 0.02:
            await sweep(world, tmp_path)
    assert await world.folder.fold(world.tenant_id)
    await sweep(world, tmp_path)
    folded = world.sums()

    assert {unit: kept_of(world, unit) for unit in erased} == {unit: {} for unit in erased}
    assert_sums_are_the_rows(world, "colour", list(METRICS))
    assert_sums_are_the_rows(world, "size", ["bought", "spent"])
    assert len(folded["values"]) > 30
    await rebuild(world.database, world.keys, world.tenant_id)
    assert world.sums() == folded
    await world.close()


async def test_a_unit_that_comes_back_is_counted_from_then_on_and_a_late_sweep_leaves_its_new_life_alone(
    database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    world = await open_world(database_urls)
    world.metrics()
    world.experiment("colour", overrides=[[world.unit_hash("u1"), "blue"], [world.unit_hash("u2"), "blue"]])
    early = world.prediction("u1", "control", score=1.0)
    await world.log(early, world.prediction("u2", "control", score=2.0))
    assert await world.folder.fold(world.tenant_id)
    await erase(world, "u1")
    world.clock.advance(59)
    grace = world.prediction("u1", "control", score=5.0)
    world.clock.advance(3)
    back = world.prediction("u1", "blue", score=7.0)
    await world.log(grace, back)
    assert await world.folder.fold(world.tenant_id)
    await sweep(world, tmp_path)
    assert await world.folder.fold(world.tenant_id)

    assert kept_of(world, "u1") == {"exposures": 1, "predictions": 1}
    assert world.ask("select variant, requests, prediction_id from exposures where unit_hash = $1", world.unit_hash("u1")) == [
        ("blue", 1, back.id)
    ]
    assert world.ask("select count(*) from predictions where unit_hash is null and id = any ($1)", [early.id, grace.id]) == [(2,)]
    assert world.ask("select overrides::text from experiments") == [(f'[["{world.unit_hash("u2")}", "blue"]]',)]
    assert_sums_are_the_rows(world, "colour", list(METRICS))
    await erase(world, "u1")
    await sweep(world, tmp_path)
    assert kept_of(world, "u1") == {}
    await world.close()
