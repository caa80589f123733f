"""What is taken, what is refused, and that nothing is counted twice or lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import event

from app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from app.experiments.outcome_rules import OutcomeToRecord
from app.experiments.types import Metric, MetricAggregation, MetricDirection, MetricKind
from app.kernel.context import Role
from tests.support.database import make_tenant

if TYPE_CHECKING:
    from app.journal.types import PredictionRecord
    from tests.integration.experiments.world import World

pytestmark = pytest.mark.integration


def of(record: PredictionRecord, value: float = 1.0, metric: str = "spent", **more: Any) -> OutcomeToRecord:
    return OutcomeToRecord(metric, value, prediction_id=str(record.id), **more)


@pytest.fixture
def world(world: World) -> World:
    world.metrics()
    world.experiment()
    return world


def total(world: World, metric: str = "spent") -> float:
    return float(world.ask("select coalesce(sum(total), 0) from metric_sums where metric = $1", metric)[0][0])


async def test_a_retry_is_the_same_outcome_and_counts_once(world: World) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    await world.folder.fold(world.tenant_id)  # its unit is counted, and nobody looks at it again unless it is marked
    first = await world.outcomes.record(world.caller(), of(record, 5.0))
    again = await world.outcomes.record(world.caller(), of(record, 5.0))
    keyed = [await world.outcomes.record(world.caller(), of(record, 2.0, idempotency_key="k")) for _ in range(2)]
    await world.folder.fold(world.tenant_id)

    assert (first.duplicate, again.duplicate, keyed[0].duplicate, keyed[1].duplicate) == (False, True, False, True)
    assert (again.id, keyed[1].id, again.value) == (first.id, keyed[0].id, 5.0)
    assert total(world) == 7.0


async def test_retries_at_the_same_moment_are_one_outcome(world: World) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    results = await asyncio.gather(*(world.outcomes.record(world.caller(), of(record, 5.0)) for _ in range(8)))

    assert len({each.id for each in results}) == 1
    assert sorted(each.duplicate for each in results) == [False, *[True] * 7]


async def test_a_repeat_with_another_value_is_a_conflict_that_names_what_is_recorded(world: World) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    await world.outcomes.record(world.caller(), of(record, 5.0))
    await world.outcomes.record(world.caller(), of(record, 5.0, idempotency_key="k"))
    with pytest.raises(Conflict, match=r"recorded with the value 5\.0"):
        await world.outcomes.record(world.caller(), of(record, 6.0))
    with pytest.raises(Conflict, match="idempotencyKey was used for another outcome"):
        await world.outcomes.record(world.caller(), of(record, 5.0, "bought", idempotency_key="k"))


async def test_forged_foreign_and_unreadable_ids_are_not_found_in_the_same_words(world: World) -> None:
    other = make_tenant(world.urls, "other")
    foreign = world.mint.mint(world.keys[other].ids)
    own = world.prediction("ann").id
    forged = type(own)(int=own.int ^ 1)
    texts = set()
    for prediction in (foreign, forged, uuid4(), "nonsense"):
        with pytest.raises(NotFound) as refused:
            await world.outcomes.record(world.caller(), OutcomeToRecord("spent", 1.0, prediction_id=str(prediction)))
        texts.add(refused.value.message.replace(str(prediction), "ID"))

    assert texts == {"There is no prediction 'ID'."}


async def test_an_outcome_that_is_there_before_its_prediction_is_pending_and_joined_when_that_arrives(world: World) -> None:
    record = world.prediction("ann", "blue")
    sent = await world.outcomes.record(world.caller(), of(record, 5.0))
    await world.folder.fold(world.tenant_id)
    assert (sent.pending, total(world)) == (True, 0.0)
    assert (await world.outcomes.record(world.caller(), of(record, 5.0))).pending

    await world.log(record)
    await world.folder.fold(world.tenant_id)
    again = await world.outcomes.record(world.caller(), of(record, 5.0))
    assert (again.id, again.duplicate, again.pending, total(world)) == (sent.id, True, False, 5.0)


async def test_a_prediction_that_arrives_between_check_and_commit_is_found_by_the_next_fold(world: World) -> None:
    record = world.prediction("ann", "blue")
    writer = await asyncpg.connect(world.urls.runtime)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("select set_config('app.tenant_id', $1, true)", str(world.tenant_id))
    await writer.execute(
        "insert into outcomes (tenant_id, id, metric, value, occurred_at, prediction_id, pending, dedup_key)"
        " values ($1, $2, 'spent', 5, $3, $4, true, 'k')",
        world.tenant_id, uuid4(), world.clock.now(), record.id,
    )  # fmt: skip
    await world.log(record)
    await world.folder.fold(world.tenant_id)
    await transaction.commit()
    await writer.close()
    await world.folder.fold(world.tenant_id)

    assert total(world) == 5.0


async def test_a_fold_beside_an_outcome_that_is_not_committed_yet_leaves_that_ones_mark_alone(world: World) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    await world.outcomes.record(world.caller(), of(record, 1.0, idempotency_key="committed"))
    writer = await asyncpg.connect(world.urls.runtime)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("select set_config('app.tenant_id', $1, true)", str(world.tenant_id))
    await writer.execute(
        "insert into outcomes (tenant_id, id, metric, value, occurred_at, unit_hash, pending, dedup_key)"
        " values ($1, $2, 'spent', 5, $3, $4, false, 'k')",
        world.tenant_id, uuid4(), world.clock.now(), record.unit_hash,
    )  # fmt: skip
    await writer.execute("insert into stale_units (tenant_id, unit_hash) values ($1, $2)", world.tenant_id, record.unit_hash)
    await world.folder.fold(world.tenant_id)
    assert total(world) == 1.0
    await transaction.commit()
    await writer.close()
    await world.folder.fold(world.tenant_id)

    assert total(world) == 6.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": float("nan")}, "finite"),
        ({"value": float("inf")}, "finite"),
        ({"value": 1e101}, "between"),
        ({"prediction_id": None}, "Exactly one"),
        ({"unit": "ann"}, "Exactly one"),
        ({"prediction_id": None, "unit": "ann"}, "idempotencyKey must be given"),
        ({"prediction_id": None, "unit": "ann", "idempotency_key": "k", "row": 0}, "row names a row of a batch"),
        ({"prediction_id": None, "unit": "", "idempotency_key": "k"}, "1 to 256"),
        ({"row": -1}, "counted from 0"),
        ({"row": 3}, "has 3 rows"),
        ({"row": 2**40}, "counted from 0"),
        ({"idempotency_key": ""}, "1 to 256"),
        ({"idempotency_key": "k" * 257}, "1 to 256"),
        ({"occurred_at": timedelta(minutes=5, seconds=1)}, "in the future"),
        ({"occurred_at": -timedelta(minutes=5, seconds=1)}, "before the prediction"),
        ({"occurred_at": -timedelta(days=30, seconds=1)}, "up to 30 days late"),
    ],
)
async def test_what_cannot_be_kept_is_refused_with_the_reason(world: World, changes: dict[str, Any], says: str) -> None:
    record = world.prediction("ann", "blue", rows=3)
    await world.log(record)
    given = {"metric": "spent", "value": 1.0, "prediction_id": str(record.id), **changes}
    if isinstance(given.get("occurred_at"), timedelta):
        given["occurred_at"] = world.clock.now() + given["occurred_at"]
    with pytest.raises(InvalidInput, match=says):
        await world.outcomes.record(world.caller(), OutcomeToRecord(**given))
    assert world.ask("select 1 from outcomes") == []


async def test_a_time_without_zone_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        await world.outcomes.record(world.caller(), of(world.prediction("ann"), occurred_at=world.clock.now().replace(tzinfo=None)))


async def test_clocks_may_differ_by_five_minutes_and_nothing_is_before_its_prediction(world: World) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    for skew in (timedelta(minutes=5), -timedelta(minutes=5)):
        await world.outcomes.record(world.caller(), of(record, occurred_at=world.clock.now() + skew, idempotency_key=str(skew)))
    kept = world.ask("select occurred_at from outcomes order by 1")
    await world.folder.fold(world.tenant_id)

    assert [row[0] - record.at for row in kept] == [timedelta(), timedelta(minutes=5)]
    assert total(world) == 2.0


async def test_an_outcome_counts_to_the_last_moment_of_the_window_and_is_refused_after_it(world: World) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    world.clock.advance(30 * 86_400)
    await world.outcomes.record(world.caller(), of(record, 5.0))
    world.clock.advance(1)
    with pytest.raises(InvalidInput, match="count for 30 days after it"):
        await world.outcomes.record(world.caller(), of(record, 5.0, idempotency_key="late"))
    await world.outcomes.record(world.caller(), OutcomeToRecord("spent", 7.0, unit="ann", idempotency_key="direct"))
    await world.folder.fold(world.tenant_id)

    assert total(world) == 5.0


async def test_what_happened_before_the_first_exposure_does_not_count(world: World) -> None:
    await world.outcomes.record(world.caller(), OutcomeToRecord("spent", 3.0, unit="ann", idempotency_key="before"))
    world.clock.advance(60)
    await world.log(world.prediction("ann", "blue"))
    world.clock.advance(60)
    await world.outcomes.record(world.caller(), OutcomeToRecord("spent", 4.0, unit="ann", idempotency_key="after"))
    await world.folder.fold(world.tenant_id)

    assert total(world) == 4.0


async def test_a_metric_that_nobody_declared_is_not_found_and_the_declared_ones_are_named(world: World) -> None:
    with pytest.raises(NotFound, match=r"no metric named 'clicks'. Declared are bought, crashed, last-seen, rating, spent\."):
        await world.outcomes.record(world.caller(), of(world.prediction("ann"), metric="clicks"))
    clicks = Metric("clicks", MetricKind.PROPORTION, MetricDirection.INCREASE, MetricAggregation.ANY)
    for _ in range(2):
        assert await world.outcomes.declare_metric(world.caller(), clicks) == clicks
    assert (await world.outcomes.record(world.caller(), of(world.prediction("ann"), metric="clicks"))).pending
    assert [row[0] for row in world.ask("select action from audit_entries")] == ["declareMetric"]
    with pytest.raises(Conflict):
        await world.outcomes.declare_metric(
            world.caller(), Metric("clicks", MetricKind.MEAN, MetricDirection.INCREASE, MetricAggregation.SUM)
        )


async def test_a_thousand_in_one_call_good_ones_are_kept_and_bad_ones_listed(world: World) -> None:
    records = [world.prediction(f"u{n}", "blue") for n in range(1000)]
    await world.log(*records[:990])
    outcomes = [of(record, 2.0) for record in records]
    outcomes[3] = of(records[3], 2.0, "clicks")
    outcomes[7] = OutcomeToRecord("spent", 2.0, prediction_id=str(uuid4()))
    outcomes[9] = of(records[8], 2.0)
    outcomes[11] = of(records[10], 3.0)
    result = await world.outcomes.record_many(world.caller(), outcomes)
    again = await world.outcomes.record_many(world.caller(), outcomes)
    await world.folder.fold(world.tenant_id)

    assert len(result.recorded) == 997
    assert [(each.index, each.code) for each in result.rejected] == [(3, "NOT_FOUND"), (7, "NOT_FOUND"), (11, "CONFLICT")]
    assert sum(each.pending for each in result.recorded) == 10
    assert [each.duplicate for each in result.recorded].count(True) == 1
    assert [each.id for each in again.recorded] == [each.id for each in result.recorded]
    assert all(each.duplicate for each in again.recorded)
    assert total(world) == 2.0 * (990 - 4)
    with pytest.raises(InvalidInput, match="at most 1,000"):
        await world.outcomes.record_many(world.caller(), [*outcomes, outcomes[0]])


async def test_many_cost_no_more_statements_than_few(world: World) -> None:
    seen: list[str] = []
    event.listen(world.database._engine.sync_engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
    counts = []
    for size in (2, 500):
        records = [world.prediction(f"u{n}", "blue") for n in range(size)]
        await world.log(*records)
        seen.clear()
        await world.outcomes.record_many(world.caller(), [of(record) for record in records])
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 4


async def test_a_token_pinned_to_a_unit_speaks_for_that_unit_alone(world: World) -> None:
    own, others, later = world.prediction("ann", "blue"), world.prediction("bob", "blue"), world.prediction("bob", "blue")
    await world.log(own, others)
    pinned = world.caller(Role.PREDICTOR, unit="ann")
    assert not (await world.outcomes.record(pinned, of(own, 2.0))).pending
    with pytest.raises(NotFound, match="There is no prediction"):
        await world.outcomes.record(pinned, of(others, 3.0))
    with pytest.raises(PermissionDenied):
        await world.outcomes.record(pinned, OutcomeToRecord("spent", 3.0, unit="bob", idempotency_key="k"))
    await world.outcomes.record(pinned, of(later, 100.0))  # whose it is nobody knows yet
    await world.folder.fold(world.tenant_id)
    assert total(world) == 2.0
    await world.log(later)
    await world.folder.fold(world.tenant_id)

    assert total(world) == 2.0
    assert world.ask("select 1 from outcomes where pending") == []


async def test_a_row_that_the_batch_turns_out_not_to_have_belongs_to_nothing(world: World) -> None:
    record = world.prediction("ann", "blue", rows=2)
    for row in (1, 2):
        await world.outcomes.record(world.caller(), of(record, 1.0, row=row))
    await world.log(record)
    await world.folder.fold(world.tenant_id)

    assert total(world) == 1.0


async def test_one_tenants_outcomes_and_sums_are_nobody_elses(world: World) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    await world.outcomes.record(world.caller(), of(record, 5.0))
    other = make_tenant(world.urls, "other")
    with pytest.raises(NotFound):
        await world.outcomes.record(world.caller(tenant_id=other), of(record, 5.0))
    with pytest.raises(NotFound, match="None is declared yet"):
        await world.outcomes.record(world.caller(tenant_id=other), OutcomeToRecord("spent", 1.0, unit="ann", idempotency_key="k"))
    await world.folder.fold(other)

    assert world.ask("select 1 from exposures") == []
    assert world.ask("select count(*) from exposure_queue")[0][0] == 1
