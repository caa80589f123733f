"""Results, looks, guardrails, shadows and power, on rows that came the ordinary way."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from app.errors import AppError, InvalidInput, NotFound
from app.experiments import store
from app.experiments.answers import PowerQuestion
from app.experiments.outcome_rules import MOST_AT_ONCE, OutcomeToRecord
from app.experiments.results import ResultsService
from app.experiments.sentinel import Sentinel
from app.experiments.stats.types import Verdict
from tests.integration.experiments.truth import first_exposures, unit_values
from tests.integration.experiments.world import ARMS, World
from tests.support.database import execute

if TYPE_CHECKING:
    from app.experiments.answers import ExperimentResults
    from app.experiments.types import Experiment
    from app.journal.types import PredictionRecord

pytestmark = pytest.mark.integration
TWO = [arm for arm in ARMS if arm["name"] != "green"]
SHADOW = {"name": "candidate", "version": 4, "alias": None, "weight": 1, "control": False, "shadow": True}


def service(world: World) -> ResultsService:
    return ResultsService(world.database, world.folder, world.keys, world.clock)


async def experiment(world: World, key: str = "colour") -> Experiment:
    async with world.database.tenant_tx(world.tenant_id) as session:
        return await store.value_of(session, await store.find(session, world.tenant_id, key))


async def results(world: World, metric: str | None = None, key: str = "colour") -> ExperimentResults:
    (found,) = await service(world).results(world.caller(), [(await experiment(world, key), metric)])
    if isinstance(found, AppError):
        raise found
    return found


async def expose(world: World, units: range, arms: list[str] | None = None, covariate: bool = True) -> list[PredictionRecord]:
    """Each unit once, arms in turn; control's score on its input is its number modulo 7."""
    arms = arms or ["control", "blue"]
    records, said = [], []
    for unit in units:
        score = float(unit % 7)
        record = world.prediction(f"u{unit}", arms[unit % len(arms)], score=score if unit % len(arms) == 0 else 9.0)
        records.append(record)
        if record.variant != "control" and covariate:
            said.append(world.covariate(record, score))
    await world.log(*records, *said)
    return records


async def happen(world: World, outcomes: list[OutcomeToRecord]) -> None:
    for start in range(0, len(outcomes), MOST_AT_ONCE):
        done = await world.outcomes.record_many(world.caller(), outcomes[start : start + MOST_AT_ONCE])
        assert done.rejected == []


def spends(records: list[PredictionRecord], rng: random.Random, effect: float = 0.0) -> list[OutcomeToRecord]:
    return [
        OutcomeToRecord("spent", 10 + 3 * (n % 7) + rng.gauss(0, 1) + effect * (record.variant != "control"), prediction_id=str(record.id))
        for n, record in enumerate(records)
    ]


def close(one: float | None, other: float) -> bool:
    return one is not None and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


async def test_results_are_those_of_the_raw_rows(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO, status="STOPPED")
    records = await expose(world, range(400), covariate=False)
    await world.log(*(world.prediction(f"u{n}", ["control", "blue"][n % 2]) for n in range(200)))
    rng = random.Random(1)
    await happen(world, [each for each in spends(records, rng, 0.4) if rng.random() < 0.8])
    found = await results(world)

    first = first_exposures(world, "colour")
    values = unit_values(world, first, "spent")
    arms = {v: np.array([values.get(unit, 0.0) for unit in units.index]) for v, units in first.groupby("variant")}
    control, blue = found.variants
    for result in (control, blue):
        mine = arms[result.variant]
        assert (result.units, result.exposures) == (200, 300)
        assert close(result.mean, mine.mean())
        assert close(result.standard_error, mine.std(ddof=1) / math.sqrt(len(mine)))
    welch = stats.ttest_ind(arms["blue"], arms["control"], equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert close(blue.difference, arms["blue"].mean() - arms["control"].mean())
    assert (close(blue.difference_low, interval.low), close(blue.difference_high, interval.high)) == (True, True)
    assert close(blue.p_value, welch.pvalue)
    assert (found.looks, found.planned_looks, found.metric, control.difference, control.verdict) == (1, 1, "spent", None, None)
    assert not found.adjusted
    assert any("have no covariate" in note for note in found.notes)
    assert found.srm.ok


async def test_controls_score_makes_intervals_smaller_and_the_answer_says_so(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO, status="STOPPED")
    records = await expose(world, range(400))
    await happen(world, spends(records, random.Random(2), 1.0))
    found = await results(world)

    first = first_exposures(world, "colour")
    values = unit_values(world, first, "spent")
    frame = first.assign(y=[values[unit] for unit in first.index])
    x = frame.covariate - frame.covariate.mean()
    within = frame.groupby("variant")
    theta = ((x - x.groupby(frame.variant).transform("mean")) * (frame.y - within.y.transform("mean"))).sum() / (
        (x - x.groupby(frame.variant).transform("mean")) ** 2
    ).sum()
    adjusted = frame.y - theta * x
    blue, control = adjusted[frame.variant == "blue"], adjusted[frame.variant == "control"]
    assert found.adjusted
    assert any("CUPED" in note for note in found.notes)
    assert close(found.variants[1].difference, blue.mean() - control.mean())
    assert found.verdict is Verdict.WINNER
    assert found.winner == "blue"


async def test_a_look_is_frozen_when_it_falls_due_and_later_rows_do_not_change_it(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO, planned_units=200, planned_looks=4)
    records = await expose(world, range(49))
    await happen(world, spends(records, random.Random(3), 5.0))
    assert (await results(world)).looks == 0
    assert (await results(world)).variants[1].difference is None
    more = await expose(world, range(49, 52))
    found = await results(world)
    assert found.looks == 1
    frozen = world.ask("select look, units, sums from looks")
    assert [(row["look"], row["units"]) for row in frozen] == [(1, 52)]

    await expose(world, range(52, 54))
    assert (await results(world)).variants[1].difference == found.variants[1].difference
    await happen(world, spends(more, random.Random(4), -1000.0))
    later = await results(world)
    assert world.ask("select look, units, sums from looks") == frozen
    assert later.variants[1].difference == found.variants[1].difference
    assert later.variants[1].mean != found.variants[1].mean
    assert world.ask("select sums from looks")[0][0] == frozen[0]["sums"]


async def test_of_several_looks_that_fall_due_at_once_only_the_highest_is_taken(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO, planned_units=200, planned_looks=4)
    await happen(world, spends(await expose(world, range(160)), random.Random(5)))
    assert (await results(world)).looks == 3
    await happen(world, spends(await expose(world, range(160, 500)), random.Random(5)))
    found = await results(world)

    assert [row[0] for row in world.ask("select look from looks order by 1")] == [3, 4]
    assert (found.looks, found.verdict) == (4, Verdict.NO_DIFFERENCE)


async def test_without_planned_units_there_is_one_look_when_it_is_stopped(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO)
    await happen(world, spends(await expose(world, range(200)), random.Random(6), 3.0))
    assert (await results(world)).looks == 0
    world.ask("update experiments set status = 'STOPPED'")
    found = await results(world)

    assert (found.looks, found.verdict, found.winner) == (1, Verdict.WINNER, "blue")


async def test_a_split_that_is_not_what_was_asked_for_makes_it_invalid(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO, status="STOPPED")
    await happen(world, spends(await expose(world, range(900), ["control", "blue", "blue"]), random.Random(7), 3.0))
    found = await results(world)

    assert (found.srm.ok, found.verdict, found.winner) == (False, Verdict.INVALID, None)


async def test_overrides_are_no_exposures(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO)
    await world.log(world.prediction("ann", "blue", reason="PINNED"), world.prediction("bob", "blue"))
    assert [each.units for each in (await results(world)).variants] == [0, 1]


async def test_a_metric_that_is_not_measured_is_not_found_and_one_bad_question_leaves_the_others(world: World) -> None:
    world.metrics(other=("MEAN", "SUM"))
    world.experiment(variants=TWO)
    asked = await experiment(world)
    found = await service(world).results(world.caller(), [(asked, "other"), (asked, "bought"), (asked, None), (asked, "crashed")])

    assert isinstance(found[0], NotFound)
    assert "it measures spent, bought, rating, last-seen, crashed" in found[0].message
    assert [each.metric for each in found[1:]] == ["bought", "spent", "crashed"]


async def test_an_experiment_of_unleash_measures_all_metrics_of_the_tenant_and_collects_until_it_has_a_plan(world: World) -> None:
    world.metrics()
    plain: dict[str, Any] = {"source": "UNLEASH", "primary_metric": None, "secondary_metrics": [], "guardrails": []}
    world.experiment("unleash-m", variants=TWO, **plain, status="STOPPED")
    records = [world.prediction(f"u{n}", ["control", "blue"][n % 2], "unleash-m") for n in range(300)]
    await world.log(*records, world.prediction("x", "blue", "unleash-not-there-yet"))
    await happen(world, spends(records, random.Random(8), 9.0))
    found = await results(world, "spent", "unleash-m")

    assert (found.verdict, found.winner, found.looks) == (Verdict.COLLECTING, None, 0)
    assert found.variants[1].verdict is Verdict.COLLECTING
    assert found.variants[1].sequential_low > 0
    with pytest.raises(InvalidInput, match="name one of the tenant's"):
        await results(world, None, "unleash-m")
    assert (await results(world, "rating", "unleash-m")).metric == "rating"


async def test_a_guardrail_that_says_harm_takes_the_traffic_away_with_an_audit_row_and_the_news(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO)
    world.experiment("calm", variants=TWO)
    execute(world.urls.superuser, "update metrics set direction = 'DECREASE' where name = 'crashed'")
    records = await expose(world, range(600))
    calm = [world.prediction(f"c{n}", ["control", "blue"][n % 2], "calm") for n in range(600)]
    await world.log(*calm)
    crashes = [
        OutcomeToRecord("crashed", 1.0, prediction_id=str(r.id)) for n, r in enumerate(records) if r.variant == "blue" and n % 3 == 0
    ]
    crashes += [OutcomeToRecord("crashed", 1.0, prediction_id=str(r.id)) for n, r in enumerate(calm) if n % 10 < 2]
    await happen(world, crashes)
    before = world.ask("select generation from routing_generation")[0][0]
    sentinel = Sentinel(world.database, world.sync, world.folder, world.clock)
    halted = await sentinel.watch()
    again = await sentinel.watch()

    assert (halted, again) == ([(world.tenant_id, "colour")], [])
    assert {row["key"]: (row["rollout"], row["status"]) for row in world.ask("select * from experiments")} == {
        "colour": (0.0, "RUNNING"),
        "calm": (100.0, "RUNNING"),
    }
    (entry,) = world.ask("select * from audit_entries")
    assert (entry["actor"], entry["subject"]) == ("turnout", "experiment:colour")
    assert "guardrail 'crashed' of the variant 'blue' is worse" in entry["reason"]
    assert json.loads(entry["after"])["rollout"] == 0
    assert world.ask("select generation from routing_generation")[0][0] == before + 1
    assert any("guardrail took its traffic away" in note for note in (await results(world)).notes)


async def test_units_that_fell_back_count_in_their_arm_and_the_results_say_how_many(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO)
    await expose(world, range(10))
    fallen = [world.prediction(unit, "blue", score=7.0, reason="FALLBACK", version=1) for unit in ("u1", "u1", "new")]
    by_hand = world.prediction("forced", None, reason="FALLBACK")
    await world.log(*fallen, by_hand)
    found = await results(world)

    assert {variant.variant: (variant.units, variant.exposures) for variant in found.variants} == {"control": (5, 5), "blue": (6, 8)}
    assert "2 of 6 units of 'blue' got a fallback's answer at least once, for its version failed: they count as its own." in found.notes
    assert not any("'control' got a fallback's" in note for note in found.notes)
    assert world.ask("select covariate from exposures where unit_hash = $1", world.unit_hash("new"))[0][0] is None


async def test_a_shadow_is_held_against_control_on_the_same_rows_with_classes(world: World) -> None:
    world.metrics(truth=("MEAN", "LAST"))
    world.experiment(variants=[*TWO, SHADOW], secondary_metrics=["truth"])
    world.keys.class_names = ("bad", "good")
    rng, told, outcomes = random.Random(9), [], []
    pairs = []
    for n in range(200):
        record = world.prediction(f"u{n}", "control" if n % 4 else "blue", rows=1)
        truth, mine, theirs = rng.choice("bg"), rng.choice("bg"), rng.choice("bg")
        theirs = truth if rng.random() < 0.6 else theirs
        words = {"b": "bad", "g": "good"}
        told += [
            record,
            world.covariate(record, 0.5, kind="SHADOW", variant="candidate", version=4, served_label=words[mine], label=words[theirs]),
        ]
        if n < 150:
            outcomes.append(OutcomeToRecord("truth", float("bg".index(truth)), prediction_id=str(record.id)))
        if record.variant == "control":
            pairs.append((mine, theirs, truth if n < 150 else None))
    await world.log(*told)
    await happen(world, [*outcomes, OutcomeToRecord("truth", 7.0, prediction_id=str(told[-2].id))])
    (found,) = await service(world).shadows(world.caller(), await experiment(world), "truth")

    known = [pair for pair in pairs if pair[2] is not None]
    only_champion = sum(m == t != s for m, s, t in known)
    only_shadow = sum(s == t != m for m, s, t in known)
    assert (found.variant, found.pairs, found.labelled) == ("candidate", 150, len(known))
    assert close(found.agreement, sum(m == s for m, s, _ in pairs) / 150)
    assert found.agreement_low < found.agreement < found.agreement_high
    assert (found.champion_correct, found.shadow_correct) == (sum(m == t for m, _, t in known), sum(s == t for _, s, t in known))
    assert close(found.difference, (only_shadow - only_champion) / len(known))
    assert close(found.p_value, stats.binomtest(only_shadow, only_shadow + only_champion).pvalue)


async def test_a_shadow_is_held_against_control_row_by_row_with_numbers(world: World) -> None:
    world.metrics()
    world.experiment(variants=[*TWO, SHADOW])
    rng, told, outcomes, errors = random.Random(10), [], [], []
    for n in range(40):
        record = world.prediction(f"u{n}", "control", rows=2)
        told.append(record)
        for row in range(2):
            truth, mine = rng.gauss(0, 1), rng.gauss(0, 1)
            theirs = mine if n < 10 else truth + rng.gauss(0, 0.1)
            told.append(world.covariate(record, theirs, kind="SHADOW", variant="candidate", row=row, served_score=mine))
            outcomes.append(OutcomeToRecord("spent", truth, prediction_id=str(record.id), row=row))
            errors.append((abs(mine - truth), abs(theirs - truth)))
    outcomes.append(OutcomeToRecord("spent", 1e6, prediction_id=str(told[0].id)))  # of a whole batch: no row's truth
    await world.log(*told)
    await happen(world, outcomes)
    (found,) = await service(world).shadows(world.caller(), await experiment(world), None)

    mine, theirs = np.array(errors).T
    paired = stats.ttest_rel(theirs, mine)
    assert (found.pairs, found.labelled, found.agreement, found.champion_correct) == (80, 80, 0.25, None)
    assert (close(found.champion_error, mine.mean()), close(found.shadow_error, theirs.mean())) == (True, True)
    assert (close(found.difference, (theirs - mine).mean()), close(found.p_value, paired.pvalue)) == (True, True)
    assert close(found.difference_high, paired.confidence_interval(0.95).high)


async def test_power_is_reckoned_from_this_tenants_own_units(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO)
    with pytest.raises(NotFound, match="no variance to reckon with"):
        await service(world).power(world.caller(), PowerQuestion("spent", effect=1.0))
    await happen(world, spends(await expose(world, range(400)), random.Random(11)))
    found = await service(world).power(world.caller(), PowerQuestion("spent", effect=1.0, units=1000))

    first = first_exposures(world, "colour")
    values = unit_values(world, first, "spent")
    control = np.array([values[unit] for unit in first.index[first.variant == "control"]])
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert (found.experiment, found.observed_units) == ("colour", 200)
    assert (close(found.mean, control.mean()), close(found.standard_deviation, control.std(ddof=1))) == (True, True)
    assert abs(found.units - 4 * z**2 * control.var(ddof=1)) < 2
    assert found.detectable_effect == pytest.approx(z * math.sqrt(4 * control.var(ddof=1) / 1000), rel=1e-4)
    with pytest.raises(InvalidInput):
        await service(world).power(world.caller(), PowerQuestion("spent"))


async def test_the_background_folds_every_tenant_and_only_one_process_at_a_time(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO)
    records = await expose(world, range(10))
    await happen(world, spends(records, random.Random(12)))
    moved = await world.folder.sweep()

    assert moved > 0
    assert world.ask("select sum(counted) from metric_sums where metric = 'spent'")[0][0] == 10
    assert world.ask("select 1 from exposure_queue") == world.ask("select 1 from stale_units") == []
    assert await world.folder.sweep() == 0


async def test_at_its_planned_units_it_ends_and_its_last_look_follows_what_those_units_still_do_and_nobody_else(world: World) -> None:
    world.metrics()
    world.experiment(variants=TWO, planned_units=100)
    counted = await expose(world, range(90))
    late = [world.prediction(f"u{unit}", ["control", "blue"][unit % 2], score=1.0) for unit in range(90, 130)]
    await world.log(*reversed(late[5:]), *late[:5])  # in one batch: the ten that came first are in, in whatever order they land
    await world.log(world.prediction("u3", "blue", score=1.0))  # who is in goes on being counted
    found = await results(world)

    assert found.looks == 1
    assert sum(variant.units for variant in found.variants) == 100
    assert sum(variant.exposures for variant in found.variants) == 101
    assert {row[0] for row in world.ask("select unit_hash from exposures")} == {world.unit_hash(f"u{unit}") for unit in range(100)}
    assert any(note.startswith("The planned 100 units are in") for note in found.notes)

    await happen(world, [OutcomeToRecord("spent", 1000.0, prediction_id=str(record.id)) for record in late[10:]])
    assert (await results(world)).variants[1].mean == found.variants[1].mean == 0
    await happen(world, spends([*counted, *late[:10]], random.Random(8), 4.0))
    after = await results(world)
    y = {name: np.array(values) for name, values in spent_by_arm(world, counted + late[:10]).items()}
    assert close(after.variants[1].mean, y["blue"].mean())
    assert (after.verdict, after.winner) == (Verdict.WINNER, "blue")


def spent_by_arm(world: World, records: list[PredictionRecord]) -> dict[str, list[float]]:
    spent = {row[0]: row[1] for row in world.ask("select prediction_id, sum(value) from outcomes where metric = 'spent' group by 1")}
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(str(record.variant), []).append(spent.get(record.id, 0.0))
    return found
