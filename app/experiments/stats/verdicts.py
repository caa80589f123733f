"""What may be said of an arm, and of the experiment: pure decisions over numbers that others have computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.experiments.stats.types import DecidedBy, Plan, Verdict
from app.experiments.types import MetricRole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.experiments.stats.types import ArmResult, Interval


@dataclass(frozen=True, slots=True)
class ArmVerdict:
    verdict: Verdict
    decided_by: DecidedBy | None = None


def is_final(plan: Plan, looks: int) -> bool:
    """Whether nothing more will come: every look is done, or the run has ended."""
    return plan.ended or looks >= plan.planned_looks


def undecided(plan: Plan, looks: int) -> Verdict:
    """What is said of an arm that nothing speaks for or against."""
    return Verdict.NO_DIFFERENCE if is_final(plan, looks) else Verdict.COLLECTING


def judge_arm(plan: Plan, looks: int, significant: float | None, sequence: Interval | None, *, harmful: bool) -> ArmVerdict:
    """The verdict of one arm while the split is right.

    `significant`: the difference where a look found it significant, else None. A run that ended before its last look is judged by
    the confidence sequence alone, unless a look had decided before; a guardrail by its one-sided sequence alone.
    """
    if plan.role is MetricRole.GUARDRAIL:
        return ArmVerdict(Verdict.LOSER, DecidedBy.SEQUENCE) if harmful else ArmVerdict(undecided(plan, looks))
    if significant is not None:
        return ArmVerdict(_by_sign(significant * plan.sign), DecidedBy.LOOK)
    if plan.ended and looks < plan.planned_looks and sequence is not None and not sequence.low <= 0 <= sequence.high:
        return ArmVerdict(_by_sign(sequence.low * plan.sign), DecidedBy.SEQUENCE)
    return ArmVerdict(undecided(plan, looks))


def judge_experiment(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict over all arms but control: WINNER as soon as one beats it, LOSER where every one loses to it."""
    for first in (Verdict.INVALID, Verdict.WINNER):
        if first in verdicts:
            return first
    if all(verdict is Verdict.LOSER for verdict in verdicts):
        return Verdict.LOSER
    return Verdict.COLLECTING if Verdict.COLLECTING in verdicts else Verdict.NO_DIFFERENCE


def best_arm(plan: Plan, variants: Sequence[ArmResult]) -> str | None:
    """Name of the arm with the largest improvement among those that beat control; the first declared of equals."""
    winners = [result for result in variants if result.verdict is Verdict.WINNER]
    return max(winners, key=lambda result: _improvement(plan, result)).variant if winners else None


def _improvement(plan: Plan, result: ArmResult) -> float:
    if result.decided_by is DecidedBy.LOOK and result.difference is not None:
        return result.difference * plan.sign
    low, high = result.sequential_low, result.sequential_high
    return 0.0 if low is None or high is None else (low + high) / 2 * plan.sign


def _by_sign(improvement: float) -> Verdict:
    return Verdict.WINNER if improvement > 0 else Verdict.LOSER
