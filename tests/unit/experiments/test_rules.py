"""What may be tried, and what may follow what."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.errors import Conflict, InvalidInput
from app.experiments import rules
from app.experiments.flags.compiling import compile_document
from app.experiments.types import (
    Experiment,
    ExperimentPlan,
    ExperimentSource,
    ExperimentStatus,
    Metric,
    MetricAggregation,
    MetricDirection,
    MetricKind,
    RunningExperiment,
    TargetingRule,
    Variant,
)

pytestmark = pytest.mark.unit

CONTROL = Variant("control", 1, None, 1, control=True, shadow=False)
NEW = Variant("new", 2, None, 1, control=False, shadow=False)
SHADOW = Variant("dark", 3, None, 1, control=False, shadow=True)
BOUGHT = rules.metric("bought", MetricKind.PROPORTION, MetricDirection.INCREASE, None)
SPENT = rules.metric("spent", MetricKind.MEAN, MetricDirection.INCREASE, None)
PLAN = ExperimentPlan("new-price", "risk", "It sells more.", (CONTROL, NEW), BOUGHT)
STATUSES = list(ExperimentStatus)


def refusal(plan: ExperimentPlan) -> str:
    with pytest.raises(InvalidInput) as caught:
        rules.check_plan(plan)
    return caught.value.message


def arms(count: int) -> tuple[Variant, ...]:
    return (CONTROL, *(replace(NEW, name=f"v{n}") for n in range(1, count)))


TAKEN = [
    PLAN,
    replace(PLAN, variants=(NEW, CONTROL)),
    replace(PLAN, variants=(CONTROL, SHADOW)),
    replace(PLAN, variants=arms(10)),
    replace(PLAN, variants=(CONTROL, replace(NEW, version=1))),  # an A/A test
    replace(PLAN, variants=(replace(CONTROL, weight=10_000), replace(SHADOW, weight=0))),  # a shadow's weight is ignored
    replace(PLAN, planned_units=100, planned_looks=50),
    replace(PLAN, primary_metric=SPENT, secondary_metrics=(BOUGHT,), guardrails=(replace(SPENT, name="latency"),)),
    replace(PLAN, layer="ranking", overrides=(("ab", "new"), ("cd", "control"))),
    replace(PLAN, targeting=(TargetingRule("country", "IN", ("NO", "SE")), TargetingRule("appVersion", "SEMVER_GT", ("2.10.0",)))),
]


@pytest.mark.parametrize("plan", TAKEN)
def test_a_plan_that_can_be_tried_is_taken(plan: ExperimentPlan) -> None:
    rules.check_plan(plan)


@pytest.mark.parametrize("rollout", [0.1, 33.333, 100])
@pytest.mark.parametrize("plan", TAKEN)
def test_what_is_taken_the_flags_take_too(plan: ExperimentPlan, rollout: float) -> None:
    slots = rules.slots_for(plan.layer, (), [], rules.buckets_of(rollout))
    running = RunningExperiment(plan.key, plan.model, rollout, plan.variants, plan.layer, slots, plan.targeting, plan.overrides)
    assert compile_document([running], 5, 1).flags  # it raises where a flag would not mean what it says


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (replace(PLAN, key="Bad Key"), "is no experiment name"),
        (replace(PLAN, model="-"), "is no model name"),
        (replace(PLAN, layer="a--b"), "is no layer name"),
        (replace(PLAN, key="unleash-risk"), "Keys that begin with 'unleash-' are kept for experiments that are born in Unleash."),
        (replace(PLAN, hypothesis="x" * 10_001), "hypothesis has 10,001 characters; at most 10,000 are kept."),
        (replace(PLAN, hypothesis="a\0b"), "hypothesis holds a character that cannot be stored"),
        (replace(PLAN, hypothesis="\ud800"), "hypothesis holds a character that cannot be stored"),
        (replace(PLAN, variants=(CONTROL,)), "There are 1 variants; there must be 2 to 10"),
        (replace(PLAN, variants=arms(11)), "There are 11 variants; there must be 2 to 10"),
        (replace(PLAN, variants=(CONTROL, replace(NEW, name="New"))), "'New' is no variant name"),
        (replace(PLAN, variants=(CONTROL, NEW, NEW)), "The variant 'new' is there twice."),
        (replace(PLAN, variants=(NEW, SHADOW)), "There are 0 control variants; there must be exactly one"),
        (replace(PLAN, variants=(CONTROL, replace(NEW, control=True))), "There are 2 control variants; there must be exactly one"),
        (replace(PLAN, variants=(NEW, replace(SHADOW, control=True))), "The control 'dark' cannot be a shadow"),
        (
            replace(PLAN, variants=(CONTROL, *(replace(SHADOW, name=f"s{n}") for n in range(3)))),
            "There are 3 shadow variants; at most 2 run on a model.",
        ),
        (replace(PLAN, variants=(CONTROL, replace(NEW, weight=0))), "The variant 'new' has the weight 0; it must be 1 to 10,000."),
        (replace(PLAN, variants=(CONTROL, replace(NEW, weight=10_001))), "The variant 'new' has the weight 10001"),
        (replace(PLAN, planned_units=99), "plannedUnits is 99; it must be at least 100, or be left out."),
        (replace(PLAN, planned_units=1000, planned_looks=51), "plannedLooks is 51; it must be 1 to 50."),
        (replace(PLAN, planned_units=1000, planned_looks=0), "plannedLooks is 0; it must be 1 to 50."),
        (replace(PLAN, planned_looks=2), "plannedLooks is 2, so plannedUnits is needed"),
        (replace(PLAN, primary_metric=replace(BOUGHT, name="Bought")), "'Bought' is no metric name"),
        (replace(PLAN, guardrails=(BOUGHT,)), "The metric 'bought' is there twice: a metric is primary, secondary or a guardrail"),
        (replace(PLAN, secondary_metrics=(SPENT,), guardrails=(SPENT,)), "The metric 'spent' is there twice"),
        (
            replace(PLAN, secondary_metrics=tuple(replace(SPENT, name=f"m{n}") for n in range(21))),
            "secondaryMetrics has 21 metrics; at most 20 are taken.",
        ),
        (
            replace(PLAN, primary_metric=replace(BOUGHT, aggregation=MetricAggregation.SUM)),
            "The metric 'bought' is a PROPORTION, whose aggregation is ANY",
        ),
        (replace(PLAN, overrides=(("ab", "newer"),)), "An override names the variant 'newer', which is none that answers."),
        (replace(PLAN, variants=(CONTROL, SHADOW), overrides=(("ab", "dark"),)), "An override names the variant 'dark'"),
        (replace(PLAN, overrides=(("ab", "new"), ("ab", "control"))), "1 of the overrides' units are there twice"),
        (replace(PLAN, overrides=tuple((str(n), "new") for n in range(201))), "There are 201 overrides; at most 200 are taken."),
        (
            replace(PLAN, targeting=(TargetingRule("country", "LIKE", ("NO",)),)),
            "targeting rule 1: operator is 'LIKE': it must be one of IN, NOT_IN,",
        ),
    ],
)
def test_a_plan_that_cannot_be_tried_is_refused_with_a_sentence(plan: ExperimentPlan, why: str) -> None:
    assert why in refusal(plan)


def test_all_that_is_wrong_is_told_at_once_the_first_ten() -> None:
    text = refusal(replace(PLAN, key="Bad", variants=(NEW, NEW), planned_units=1))
    assert ["'Bad' is no" in text, "'new' is there twice" in text, "0 control" in text, "plannedUnits is 1" in text] == [True] * 4
    many = refusal(replace(PLAN, variants=(CONTROL, *(replace(NEW, name=f"v{n}", weight=0) for n in range(9))), key="Bad", model="Bad"))
    assert many.endswith("And 1 more.")


def test_overrides_are_never_told_by_unit() -> None:
    assert "secret" not in refusal(replace(PLAN, overrides=(("secret", "newer"), ("secret", "newer"))))


def test_a_metric_is_counted_as_its_kind_is_unless_it_says_otherwise() -> None:
    assert BOUGHT.aggregation is MetricAggregation.ANY
    assert SPENT.aggregation is MetricAggregation.SUM
    last = rules.metric("spent", MetricKind.MEAN, MetricDirection.DECREASE, MetricAggregation.LAST)
    assert last == Metric("spent", MetricKind.MEAN, MetricDirection.DECREASE, MetricAggregation.LAST)


@pytest.mark.parametrize("step", ["start", "ramp", "stop", "conclude", "update"])
@pytest.mark.parametrize("status", STATUSES)
def test_each_step_follows_where_it_may_and_is_a_conflict_that_says_what_may(step: str, status: ExperimentStatus) -> None:
    allowed = {
        ("start", "DRAFT"), ("update", "DRAFT"), ("conclude", "DRAFT"), ("ramp", "RUNNING"), ("stop", "RUNNING"), ("conclude", "RUNNING"),
        ("conclude", "STOPPED"),
    }  # fmt: skip
    if (step, status.value) in allowed:
        rules.check_transition("new-price", status, ExperimentSource.TURNOUT, step)
        return
    with pytest.raises(Conflict) as caught:
        rules.check_transition("new-price", status, ExperimentSource.TURNOUT, step)
    assert f"The experiment 'new-price' is {status}" in caught.value.message
    assert rules._NEXT[status] in caught.value.message or (step, status) == ("update", ExperimentStatus.RUNNING)


def test_weights_of_a_running_experiment_stay_and_the_refusal_says_why() -> None:
    with pytest.raises(Conflict, match=r"would move units from one variant to another and spoil the comparison.*rampExperiment"):
        rules.check_transition("new-price", ExperimentStatus.RUNNING, ExperimentSource.TURNOUT, "update")


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("step", ["start", "ramp", "stop", "conclude", "update"])
def test_an_experiment_born_in_unleash_is_led_there(step: str, status: ExperimentStatus) -> None:
    if (step, status.value) in {("conclude", "STOPPED"), ("update", "RUNNING")}:
        rules.check_transition("unleash-risk", status, ExperimentSource.UNLEASH, step)
    else:
        with pytest.raises(Conflict, match="is a flag of the Unleash server: change the flag there"):
            rules.check_transition("unleash-risk", status, ExperimentSource.UNLEASH, step)


def test_two_experiments_run_on_a_model_only_in_one_layer() -> None:
    layered = replace(PLAN, layer="ranking")
    rules.check_beside(PLAN, [])
    rules.check_beside(layered, [("other", "ranking", 0), ("third", "ranking", 2)])
    for plan, others in [(PLAN, [("other", None, 0)]), (PLAN, [("other", "ranking", 0)]), (layered, [("other", None, 0)]),
                         (layered, [("first", "ranking", 0), ("other", "prices", 0)])]:  # fmt: skip
        with pytest.raises(Conflict, match="The experiment 'other' runs on the model 'risk': stop or conclude it first"):
            rules.check_beside(plan, others)


def test_at_most_two_shadows_run_on_a_model_over_all_experiments() -> None:
    plan = replace(PLAN, layer="ranking", variants=(CONTROL, SHADOW))
    rules.check_beside(plan, [("one", "ranking", 1)])
    with pytest.raises(Conflict, match="At most 2 shadow variants run on a model at once: one, two"):
        rules.check_beside(plan, [("one", "ranking", 1), ("two", "ranking", 1)])
    with pytest.raises(Conflict, match="20 experiments run on the model 'risk', which is as many as there may be"):
        rules.check_beside(plan, [(f"e{n}", "ranking", 0) for n in range(20)])


def test_a_metric_declared_otherwise_is_a_conflict_that_says_how() -> None:
    rules.check_declared([BOUGHT, SPENT], [SPENT, BOUGHT])
    with pytest.raises(Conflict) as caught:
        rules.check_declared([BOUGHT, SPENT], [BOUGHT, replace(SPENT, direction=MetricDirection.DECREASE)])
    assert caught.value.message == (
        "The metric 'spent' of your tenant is MEAN DECREASE SUM, not MEAN INCREASE SUM: use it so, or name another."
    )


def experiment(status: ExperimentStatus, *variants: Variant) -> Experiment:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return Experiment(
        UUID(int=1), "new-price", "risk", status, ExperimentSource.TURNOUT, None, 5.0, variants, BOUGHT, (), (), None, 1, None, (), now,
        "ann", None, None, 1,
    )  # fmt: skip


def test_the_version_to_promote_is_the_named_variants() -> None:
    assert rules.version_to_promote(experiment(ExperimentStatus.RUNNING, CONTROL, NEW, SHADOW), "new") == 2
    assert rules.version_to_promote(experiment(ExperimentStatus.STOPPED, CONTROL, NEW, SHADOW), "dark") == 3
    with pytest.raises(InvalidInput, match="promoteVariant is 'newer'; the experiment 'new-price' has the variants control, new"):
        rules.version_to_promote(experiment(ExperimentStatus.RUNNING, CONTROL, NEW), "newer")
    with pytest.raises(InvalidInput, match="names the alias 'canary' and no version"):
        rules.version_to_promote(experiment(ExperimentStatus.RUNNING, CONTROL, replace(NEW, version=None, alias="canary")), "new")
    with pytest.raises(Conflict, match="is a DRAFT: nothing was found out yet"):
        rules.version_to_promote(experiment(ExperimentStatus.DRAFT, CONTROL, NEW), "new")
