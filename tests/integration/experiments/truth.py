"""The sums of an experiment, computed from the raw rows alone: with pandas and whole-table passes, nothing of what is tested."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from tests.integration.experiments.world import METRICS, WINDOW_DAYS
from tests.support.database import execute

if TYPE_CHECKING:
    from tests.integration.experiments.world import World

ARM = ("units", "requests", "covered", "cov_total", "cov_squares", "fell_back")
SUMS = (
    "counted", "total", "squares", "both_counted", "both_total", "both_squares", "both_cov_total", "both_cov_squares", "cross_products",
)  # fmt: skip


def table(world: World, name: str) -> pd.DataFrame:
    rows = execute(world.urls.superuser, f"select * from {name} where tenant_id = $1", world.tenant_id)
    columns = execute(
        world.urls.superuser, "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 order by attnum", name
    )
    return pd.DataFrame([tuple(row) for row in rows], columns=[row[0] for row in columns])


def first_exposures(world: World, experiment: str, control: str = "control") -> pd.DataFrame:
    """A row a unit, by unit hash: variant, first_at, requests, fallbacks, covariate."""
    served = table(world, "predictions")
    served = served[(served.experiment == experiment) & served.reason.isin(["EXPERIMENT", "FALLBACK"]) & served.unit_hash.notna()]
    served = served.assign(order=[each.int for each in served.id]).sort_values(["at", "order"])
    first = served.drop_duplicates("unit_hash").set_index("unit_hash")
    first["requests"] = served.groupby("unit_hash").size()
    first["fallbacks"] = (served.reason == "FALLBACK").groupby(served.unit_hash).sum()
    said = table(world, "shadow_answers")
    said = said[(said.kind == "COVARIATE") & (said.row == 0)].set_index("prediction_id").score if len(said) else pd.Series(dtype=float)
    told = [said.get(each) for each in first.id]
    by_control = (first.variant == control) & (first.reason == "EXPERIMENT")
    own = [score if its_own else None for its_own, score in zip(by_control, first.score, strict=True)]
    first["covariate"] = [_first(a, b) for a, b in zip(own, told, strict=True)]
    return first


def unit_values(world: World, first: pd.DataFrame, metric: str) -> dict[str, float]:
    """Each unit's value; units without an outcome are not in it."""
    happened = table(world, "outcomes")
    if happened.empty:
        return {}
    happened = happened[(happened.metric == metric) & happened.unit_hash.isin(first.index) & ~happened.pending]
    since = happened.unit_hash.map(first["at"])
    happened = happened[(happened.occurred_at >= since) & (happened.occurred_at <= since + timedelta(days=WINDOW_DAYS))]
    values = {}
    for unit, its in happened.groupby("unit_hash"):
        ordered = its.assign(order=[each.int for each in its.id]).sort_values(["occurred_at", "order"])
        values[unit] = {
            "ANY": lambda v: float(any(x != 0 for x in v)), "SUM": math.fsum, "MEAN": lambda v: math.fsum(v) / len(v), "LAST": lambda v: v[-1],
        }[METRICS[metric][1]](list(ordered.value))  # fmt: skip
    return values


def sums_of(
    world: World, experiment: str, metrics: list[str]
) -> tuple[dict[str, dict[str, float]], dict[tuple[str, str], dict[str, float]]]:
    """By arm, and by metric and arm."""
    first = first_exposures(world, experiment)
    arms, sums = {}, {}
    for variant, units in first.groupby("variant"):
        x = [each for each in units.covariate if each is not None and not math.isnan(each)]
        numbers = (
            len(units),
            int(units.requests.sum()),
            len(x),
            math.fsum(x),
            math.fsum(v * v for v in x),
            int((units.fallbacks > 0).sum()),
        )
        arms[variant] = dict(zip(ARM, numbers, strict=True))
    for metric in metrics:
        values = unit_values(world, first, metric)
        for variant, units in first.groupby("variant"):
            y = [(values[unit], row.covariate) for unit, row in units.iterrows() if unit in values]
            both = [(v, x) for v, x in y if x is not None and not math.isnan(x)]
            sums[metric, variant] = dict(
                zip(
                    SUMS,
                    (
                        len(y), math.fsum(v for v, _ in y), math.fsum(v * v for v, _ in y), len(both), math.fsum(v for v, _ in both),
                        math.fsum(v * v for v, _ in both), math.fsum(x for _, x in both), math.fsum(x * x for _, x in both),
                        math.fsum(v * x for v, x in both),
                    ),
                    strict=True,
                )
            )  # fmt: skip
    return arms, sums


def assert_sums_are_the_rows(world: World, experiment: str, metrics: list[str]) -> None:
    """What is stored equals what the rows say, to 1e-9; counts to the unit."""
    arms, sums = sums_of(world, experiment, metrics)
    stored = world.ask(f"select variant, {', '.join(ARM)} from exposure_tallies where experiment = $1 and units > 0", experiment)
    assert {row["variant"]: _close(row, ARM, arms[row["variant"]]) for row in stored} == {key: [] for key in arms}
    rows = world.ask(f"select metric, variant, {', '.join(SUMS)} from metric_sums where experiment = $1 and counted > 0", experiment)
    counted = {place for place, numbers in sums.items() if numbers["counted"]}
    assert {(r["metric"], r["variant"]): _close(r, SUMS, sums[r["metric"], r["variant"]]) for r in rows} == {key: [] for key in counted}


def _close(row: Any, names: tuple[str, ...], truth: dict[str, float]) -> list[str]:
    """The names of the numbers that differ."""
    return [f"{n}: {row[n]} is not {truth[n]}" for n in names if not math.isclose(float(row[n]), truth[n], rel_tol=1e-9, abs_tol=1e-9)]


def _first(*values: Any) -> float | None:
    usable = (value for value in values if value is not None and not math.isnan(value) and (value == 0 or 1e-100 <= abs(value) <= 1e100))
    return next((float(value) for value in usable), None)
