"""From draft to conclusion on a real database: what changes, what is written down, what is refused and then unchanged."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from app.experiments.halting import halt_in
from app.experiments.types import ExperimentStatus, MetricAggregation, MetricKind, TargetingRule, Variant
from app.kernel.context import Role
from app.kernel.inspection import InspectionReport
from app.kernel.signature import Column, ColumnType, InputKind, Signature
from tests.integration.experiments.lab import BOUGHT, SPENT, plan

if TYPE_CHECKING:
    from tests.integration.experiments.lab import Lab

pytestmark = pytest.mark.integration

DRAFT, RUNNING, STOPPED, CONCLUDED = ExperimentStatus


async def test_a_draft_is_kept_as_it_was_planned(lab: Lab) -> None:
    shadow = Variant("dark", 3, None, 7, control=False, shadow=True)
    drawn = plan("new-price", 1, 2)
    wanted = replace(
        drawn, variants=(*drawn.variants, shadow), hypothesis="It sells more.", secondary_metrics=(SPENT,), planned_units=5000,
        planned_looks=5, layer="ranking", targeting=(TargetingRule("country", "IN", ("NO",)),),
    )  # fmt: skip
    made = await lab.service.create(lab.ctx, wanted)
    assert (made.key, made.model, made.status, made.rollout, made.revision) == ("new-price", "risk", DRAFT, 0.0, 1)
    assert (made.created_at, made.created_by, made.started_at, made.ended_at) == (lab.clock.now(), "ann", None, None)
    assert (made.variants, made.primary_metric, made.secondary_metrics) == (wanted.variants, BOUGHT, (SPENT,))
    assert (made.planned_units, made.planned_looks, made.layer, made.targeting) == (5000, 5, "ranking", wanted.targeting)
    assert await lab.service.experiment(lab.ctx, "new-price") == made
    assert made.arms == drawn.variants
    assert made.shadows == (shadow,)


async def test_each_change_is_one_revision_one_audit_row_and_one_piece_of_news(lab: Lab) -> None:
    before = lab.generation()
    await lab.create()
    lab.clock.advance(60)
    started = await lab.service.start(lab.ctx, "new-price", 5)
    lab.clock.advance(60)
    ramped = await lab.service.ramp(lab.ctx, "new-price", 50)
    lab.clock.advance(60)
    stopped = await lab.service.stop(lab.ctx, "new-price", "enough")
    lab.clock.advance(60)
    concluded = await lab.rollouts.conclude(lab.ctx, "new-price", reason="no winner")
    assert [(e.status, e.rollout, e.revision) for e in (started, ramped, stopped, concluded)] == [
        (RUNNING, 5.0, 2),
        (RUNNING, 50.0, 3),
        (STOPPED, 50.0, 4),
        (CONCLUDED, 50.0, 5),
    ]
    assert (started.started_at, concluded.ended_at) == (stopped.started_at, stopped.ended_at)
    assert (concluded.ended_at - concluded.started_at).total_seconds() == 120
    log = lab.audited("experiment:new-price")
    assert [(action, reason) for action, _, _, reason in log] == [
        ("createExperiment", None),
        ("startExperiment", None),
        ("rampExperiment", None),
        ("stopExperiment", "enough"),
        ("concludeExperiment", "no winner"),
    ]
    told = [(json.loads(b)["rollout"], json.loads(a)["rollout"], json.loads(a)["revision"]) for _, b, a, _ in log[1:]]
    assert told == [(0.0, 5.0, 2), (5.0, 50.0, 3), (50.0, 50.0, 4), (50.0, 50.0, 5)]
    assert lab.generation() == before + 5
    assert lab.heard.tenants == [lab.ctx.tenant_id] * 5
    assert lab.heard.generations == list(range(before + 1, before + 6))  # each step is waited for, at every replica


async def test_a_change_that_is_refused_leaves_nothing_behind(lab: Lab) -> None:
    await lab.create()
    before = lab.generation(), len(lab.audited("experiment:new-price"))
    for attempt in (
        lab.service.ramp(lab.ctx, "new-price", 5),
        lab.service.stop(lab.ctx, "new-price", None),
        lab.service.start(lab.ctx, "new-price", 0.05),
        lab.rollouts.conclude(lab.ctx, "new-price", "v1"),
        lab.create(),
    ):
        with pytest.raises((Conflict, InvalidInput)):
            await attempt
    assert (lab.generation(), len(lab.audited("experiment:new-price"))) == before
    assert (await lab.service.experiment(lab.ctx, "new-price")).revision == 1


async def test_a_taken_key_is_a_conflict(lab: Lab) -> None:
    await lab.create()
    with pytest.raises(Conflict, match="There is an experiment with the key 'new-price' already"):
        await lab.create()


async def test_what_is_not_there_is_not_found(lab: Lab) -> None:
    with pytest.raises(NotFound, match="There is no model named 'none'"):
        await lab.create(model="none")
    with pytest.raises(NotFound, match="There is no version 9 of the model 'risk'"):
        await lab.create("x", 1, 9)
    for key in ("none", "a\0b", "\ud800"):
        with pytest.raises(NotFound, match="There is no experiment with the key"):
            await lab.service.experiment(lab.ctx, key)


async def test_a_version_that_cannot_serve_takes_no_part(lab: Lab) -> None:
    await lab.registry.upload(b"four")
    await lab.registry.register(b"four")
    with pytest.raises(InvalidInput, match="Version 4 of 'risk' is VALIDATING and cannot take part"):
        await lab.create("x", 1, 4)
    await lab.create()
    await lab.registry.service.withdraw(lab.ctx, "risk", 2, "wrong data")
    with pytest.raises(Conflict, match="Version 2 of 'risk' is WITHDRAWN and cannot take part"):
        await lab.service.start(lab.ctx, "new-price", 100)


async def test_a_variant_takes_what_the_callers_of_control_and_of_production_send(lab: Lab) -> None:
    async def with_columns(data: bytes, *columns: Column, classes: tuple[str, ...] = ("no", "yes")) -> int:
        await lab.registry.upload(data)
        report = InspectionReport(None, Signature(columns, InputKind.ARRAY, ()), classes, "DummyClassifier", {}, ())
        return await lab.registry.checked(await lab.registry.register(data), report)

    x = Column("x", ColumnType.NUMBER)
    wider = await with_columns(b"wider", x, Column("y", ColumnType.NUMBER, required=False))
    others = await with_columns(b"others", x, classes=("no", "maybe"))
    await lab.create("wider", 1, wider)
    with pytest.raises(InvalidInput, match="Version 1 of 'risk' does not fit callers of the control, version 4: Callers send 'y'"):
        await lab.create("narrower", wider, 1)
    with pytest.raises(InvalidInput, match="Version 5 of 'risk' does not fit callers of the control, version 1: Callers know the classes"):
        await lab.create("others", 1, others)
    await lab.registry.service.promote(lab.ctx, "risk", wider)
    with pytest.raises(
        InvalidInput,
        match=r"Version 1 of 'risk' does not fit callers of 'production', version 4: Callers send 'y'.* let version 4 be the control\.$",
    ):
        await lab.create("stale", 1, 2)
    with pytest.raises(Conflict, match="Version 1 of 'risk' does not fit callers of 'production', version 4"):
        await lab.service.start(lab.ctx, "wider", 100)


async def test_a_metric_is_the_tenants_and_declared_once(lab: Lab) -> None:
    await lab.create("first")
    await lab.create("second", guardrails=(SPENT,))
    otherwise = replace(BOUGHT, kind=MetricKind.MEAN, aggregation=MetricAggregation.SUM)
    with pytest.raises(Conflict, match="The metric 'bought' of your tenant is PROPORTION INCREASE ANY, not MEAN INCREASE SUM"):
        await lab.create("third", primary_metric=otherwise, secondary_metrics=(replace(SPENT, name="newcomer"),))
    assert [row[0] for row in lab.registry.sql("select name from metrics order by name")] == ["bought", "spent"]
    with pytest.raises(NotFound):
        await lab.service.experiment(lab.ctx, "third")


async def test_units_that_are_forced_are_hashed_at_once_and_nowhere_kept(lab: Lab) -> None:
    await lab.create(overrides=[("ann@example.org", "v1")])
    await lab.service.update(lab.ctx, "new-price", {}, [("bob@example.org", "v0")])
    (row,) = lab.registry.sql("select overrides::text from experiments")
    assert json.loads(row[0]) == [[f"hash-of-15-{sum(b'bob@example.org')}", "v0"]]
    whole = [
        lab.registry.sql(f"select coalesce(string_agg(t::text, ''), '') from {table} t")[0][0] for table in ("experiments", "audit_entries")
    ]
    assert "example.org" not in "".join(whole)
    with pytest.raises(InvalidInput, match="unit has 0 bytes"):
        await lab.create("other", overrides=[("", "v1")])


async def test_a_draft_is_changed_and_what_is_left_out_stays(lab: Lab) -> None:
    await lab.create(hypothesis="It sells more.", layer="ranking")
    changed = await lab.service.update(lab.ctx, "new-price", {"variants": plan("x", 1, 3).variants, "layer": None, "guardrails": (SPENT,)})
    assert [v.version for v in changed.variants] == [1, 3]
    assert (changed.layer, changed.guardrails, changed.hypothesis, changed.revision) == (None, (SPENT,), "It sells more.", 2)
    assert (await lab.service.update(lab.ctx, "new-price", {"layer": None})).revision == 2  # nothing changes: nothing is written
    with pytest.raises(InvalidInput, match="plannedLooks is 5, so plannedUnits is needed"):
        await lab.service.update(lab.ctx, "new-price", {"planned_looks": 5})


async def test_nothing_of_a_running_experiment_is_edited(lab: Lab) -> None:
    await lab.started()
    heavier = tuple(replace(variant, weight=9) for variant in plan("x", 1, 2).variants)
    with pytest.raises(Conflict, match="its variants, weights and plan stay as they are"):
        await lab.service.update(lab.ctx, "new-price", {"variants": heavier})
    with pytest.raises(Conflict, match="is RUNNING and cannot be started: it can be ramped, stopped or concluded"):
        await lab.service.start(lab.ctx, "new-price", 5)


async def test_the_same_share_again_changes_nothing(lab: Lab) -> None:
    started = await lab.started(rollout=20)
    assert await lab.service.ramp(lab.ctx, "new-price", 20) == started
    assert len(lab.audited("experiment:new-price")) == 2


async def test_a_second_experiment_runs_on_a_model_only_in_the_same_layer(lab: Lab) -> None:
    await lab.started("first", layer="ranking", rollout=60)
    await lab.create("alone")
    with pytest.raises(Conflict, match="The experiment 'first' runs on the model 'risk'"):
        await lab.service.start(lab.ctx, "alone", 100)
    await lab.create("second", layer="ranking")
    with pytest.raises(Conflict, match="40 % of the layer 'ranking' is free, and 50 % more is asked for"):
        await lab.service.start(lab.ctx, "second", 50)
    await lab.service.start(lab.ctx, "second", 40)
    assert (lab.slots("first"), lab.slots("second")) == ("[[0, 60000]]", "[[60000, 100000]]")
    await lab.service.stop(lab.ctx, "first", None)
    await lab.service.ramp(lab.ctx, "second", 70)
    assert (lab.slots("first"), lab.slots("second")) == ("[]", "[[60000, 100000], [0, 30000]]")


async def test_a_layer_is_shared_by_models_and_two_who_start_at_once_never_overlap(lab: Lab) -> None:
    for number in range(4):
        for data in (b"a", b"b"):
            await lab.registry.ready(data + bytes([number]), model=f"model-{number}")
        await lab.create(f"e{number}", model=f"model-{number}", layer="ranking")
    await asyncio.gather(*(lab.service.start(lab.ctx, f"e{number}", 25) for number in range(4)))
    taken = sorted(tuple(json.loads(lab.slots(f"e{number}"))[0]) for number in range(4))
    assert taken == [(0, 25_000), (25_000, 50_000), (50_000, 75_000), (75_000, 100_000)]


async def test_of_two_who_start_at_once_on_a_model_one_is_refused(lab: Lab) -> None:
    await lab.create("one")
    await lab.create("two")
    outcomes = await asyncio.gather(*(lab.service.start(lab.ctx, key, 100) for key in ("one", "two")), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Experiment"]


async def test_shadows_of_a_model_are_two_over_all_experiments(lab: Lab) -> None:
    def shadows(*versions: int) -> tuple[Variant, ...]:
        return (plan("x", 1).variants[0], *(Variant(f"s{v}", v, None, 1, control=False, shadow=True) for v in versions))

    await lab.started("first", rollout=10, layer="ranking", variants=shadows(2, 3))
    await lab.create("second", layer="ranking", variants=shadows(2))
    with pytest.raises(Conflict, match="At most 2 shadow variants run on a model at once: first"):
        await lab.service.start(lab.ctx, "second", 10)


async def test_the_emergency_brake_takes_the_traffic_and_a_ramp_gives_it_back(lab: Lab) -> None:
    await lab.started(rollout=20, layer="ranking")
    before = lab.generation()
    async with lab.database.tenant_tx(lab.ctx.tenant_id) as session:
        assert await halt_in(session, lab.ctx.tenant_id, "new-price", lab.clock, "turnout", "latency is worse") is True
    async with lab.database.tenant_tx(lab.ctx.tenant_id) as session:
        assert await halt_in(session, lab.ctx.tenant_id, "new-price", lab.clock, "turnout", "latency is worse") is False
    halted = await lab.service.experiment(lab.ctx, "new-price")
    assert (halted.status, halted.rollout, halted.revision, lab.slots("new-price")) == (RUNNING, 0.0, 3, "[]")
    assert lab.generation() == before + 1
    assert [row[0] for row in lab.audited("experiment:new-price")] == ["createExperiment", "startExperiment", "haltExperiment"]
    ramped = await lab.service.ramp(lab.ctx, "new-price", 20)
    assert (ramped.rollout, lab.slots("new-price")) == (20.0, "[[0, 20000]]")


async def test_lists_are_newest_first_by_model_and_status_a_page_at_a_time(lab: Lab) -> None:
    await lab.registry.ready(b"other", model="other")
    for number in range(5):
        await lab.create(f"e{number}")
        lab.clock.advance(number % 2)  # two of one moment
    await lab.service.start(lab.ctx, "e3", 5)
    await lab.create("theirs", 1, 1, model="other")
    first = await lab.service.experiments(lab.ctx, 4, None)
    rest = await lab.service.experiments(lab.ctx, 4, first.cursors[-1])
    assert [e.key for e in (*first.items, *rest.items)] == ["e4", "theirs", "e2", "e3", "e0", "e1"]
    assert (first.has_next, rest.has_next) == (True, False)
    assert [e.key for e in (await lab.service.experiments(lab.ctx, 9, None, "other")).items] == ["theirs"]
    assert [e.key for e in (await lab.service.experiments(lab.ctx, 9, None, None, RUNNING)).items] == ["e3"]
    assert (await lab.service.experiments(lab.ctx, 9, None, "no\0such")).items == []
    with pytest.raises(InvalidInput, match="after is not a cursor"):
        await lab.service.experiments(lab.ctx, 9, "x")


async def test_experimenters_manage_and_readers_read(lab: Lab) -> None:
    experimenter, reader, publisher = (lab.as_role(role) for role in (Role.EXPERIMENTER, Role.READER, Role.PUBLISHER))
    await lab.service.create(experimenter, plan("new-price", 1, 2))
    await lab.service.start(experimenter, "new-price", 5)
    assert (await lab.service.experiment(reader, "new-price")).status is RUNNING
    for attempt in (
        lab.service.experiment(publisher, "new-price"),
        lab.service.experiments(publisher, 1, None),
        lab.service.create(reader, plan("x", 1, 2)),
        lab.service.update(reader, "new-price", {}),
        lab.service.start(reader, "new-price", 5),
        lab.service.ramp(reader, "new-price", 5),
        lab.service.stop(reader, "new-price", None),
        lab.rollouts.conclude(reader, "new-price"),
    ):
        with pytest.raises(PermissionDenied):
            await attempt
