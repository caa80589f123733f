"""The sums of an experiment as they are, and as JSON that loses no digit: what looks freeze and results read."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Text, bindparam, select

from app.experiments.exposures import statement
from app.experiments.rows import LookRow
from app.experiments.stats.types import ArmSums

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_COUNTS = ("units", "requests", "covered", "fell_back", "counted", "both_counted")
_TALLIED = ("units", "requests", "covered", "cov_total", "cov_squares", "fell_back")
_SUMMED = (
    "counted", "total", "squares", "both_counted", "both_total", "both_squares", "both_cov_total", "both_cov_squares", "cross_products",
)  # fmt: skip
_SUMS = statement(f"""
select experiment, null as metric, variant, {", ".join(_TALLIED)}, {", ".join(f"null as {name}" for name in _SUMMED)}
from exposure_tallies where tenant_id = :tenant and experiment = any (:keys)
union all
select experiment, metric, variant, {", ".join(f"null as {name}" for name in _TALLIED)}, {", ".join(_SUMMED)}
from metric_sums where tenant_id = :tenant and experiment = any (:keys)""").bindparams(bindparam("keys", type_=ARRAY(Text())))  # noqa: S608  constants
Numbers = dict[str, Any]  # by column: int for counts, Decimal for sums


@dataclass(frozen=True, slots=True)
class ExperimentSums:
    """Of one experiment: `arms` by variant, `metrics` by metric and variant. What has no row is nothing."""

    arms: dict[str, Numbers] = field(default_factory=dict)
    metrics: dict[str, dict[str, Numbers]] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Of all arms together."""
        return sum(numbers["units"] for numbers in self.arms.values())

    def requests(self, variant: str) -> int:
        return int(self.arms.get(variant, {}).get("requests", 0))

    def fell_back(self, variant: str) -> int:
        """Units of the arm that got a fallback's answer at least once."""
        return int(self.arms.get(variant, {}).get("fell_back", 0))

    def of(self, metric: str, variant: str) -> ArmSums:
        """What the statistics take."""
        tally, sums = self.arms.get(variant, {}), self.metrics.get(metric, {}).get(variant, {})
        return ArmSums(
            units=tally.get("units", 0),
            counted=sums.get("counted", 0),
            total=sums.get("total", 0),
            squares=sums.get("squares", 0),
            covered=tally.get("covered", 0),
            cov_total=tally.get("cov_total", 0),
            cov_squares=tally.get("cov_squares", 0),
            both=sums.get("both_counted", 0),
            both_total=sums.get("both_total", 0),
            both_squares=sums.get("both_squares", 0),
            cross=sums.get("cross_products", 0),
            both_cov_total=sums.get("both_cov_total", 0),
            both_cov_squares=sums.get("both_cov_squares", 0),
        )

    def to_json(self) -> dict[str, Any]:
        """Decimals as text: JSON's numbers are floats to most readers."""
        return {"arms": _as_text(self.arms), "metrics": {metric: _as_text(arms) for metric, arms in self.metrics.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ExperimentSums:
        return cls(_as_numbers(data["arms"]), {metric: _as_numbers(arms) for metric, arms in data["metrics"].items()})


@dataclass(frozen=True, slots=True)
class FrozenLook:
    """A look that was done, with the sums of that moment."""

    number: int
    units: int
    sums: ExperimentSums


async def read_sums(session: AsyncSession, tenant_id: UUID, keys: Collection[str]) -> dict[str, ExperimentSums]:
    """The sums of each of these experiments, all of one moment: a fold in between would leave more values than units."""
    found = {key: ExperimentSums() for key in keys}
    for row in (await session.execute(_SUMS, {"tenant": tenant_id, "keys": list(found)})).mappings():
        if row["metric"] is None:
            found[row["experiment"]].arms[row["variant"]] = {name: row[name] for name in _TALLIED}
        else:
            found[row["experiment"]].metrics.setdefault(row["metric"], {})[row["variant"]] = {name: row[name] for name in _SUMMED}
    return found


async def read_looks(session: AsyncSession, tenant_id: UUID, keys: Sequence[str]) -> dict[str, list[FrozenLook]]:
    """The looks done of each of these experiments, oldest first, in one query."""
    found: dict[str, list[FrozenLook]] = {key: [] for key in keys}
    query = select(LookRow).where(LookRow.tenant_id == tenant_id, LookRow.experiment.in_(found)).order_by(LookRow.look)
    for row in (await session.execute(query)).scalars():
        found[row.experiment].append(FrozenLook(row.look, row.units, ExperimentSums.from_json(row.sums)))
    return found


def _as_text(arms: dict[str, Numbers]) -> dict[str, Any]:
    return {v: {n: x if n in _COUNTS else format(x, "f") for n, x in numbers.items()} for v, numbers in arms.items()}


def _as_numbers(arms: dict[str, Any]) -> dict[str, Numbers]:
    return {v: {n: x if n in _COUNTS else Decimal(x) for n, x in numbers.items()} for v, numbers in arms.items()}
