"""What two versions answer to the same rows: the sample that one of them was registered with. For people who decide, not for requests.

The answers come from the versions' runtimes, as predictions do, but they are nobody's predictions: they are not in the log, count
against no quota and take no part in an experiment. One comparison at a time in a process, within the request's deadline.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import AppError, DeadlineExceeded, InvalidFeatures
from app.prediction.features import RowChecker
from app.registry.comparison import breaks_of, metrics_of

if TYPE_CHECKING:
    from uuid import UUID

    from app.kernel.clock import Deadline
    from app.kernel.context import RequestContext
    from app.kernel.tensors import Scores
    from app.prediction.pool import RuntimePool
    from app.registry.comparison import ComparedMetric, SignatureBreak, VersionPair, VersionPairs
    from app.registry.types import ModelVersion, VersionRoute

SHOWN_ROWS = 50
_EQUAL_TO = 1e-6  # relative: predicted numbers that agree to six digits


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    label: str | None
    probability: float | None  # of `label`
    value: float | None


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """`difference`: the largest of a probability or of the value; None where they cannot be compared."""

    row: Any
    a: ComparedAnswer
    b: ComparedAnswer
    agree: bool
    difference: float | None


@dataclass(frozen=True, slots=True)
class ComparedAnswers:
    """`rows`: the first 50; the other numbers are of all `compared`. `unavailable`: why nothing was compared."""

    rows: list[ComparedRow]
    compared: int = 0
    agreement: float | None = None
    largest_difference: float | None = None
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class VersionComparison:
    a: ModelVersion
    b: ModelVersion
    metrics: list[ComparedMetric]
    breaks_callers_of_a: list[SignatureBreak]  # that move to b
    breaks_callers_of_b: list[SignatureBreak]  # that move to a
    columns_added: list[str]  # in b alone
    columns_removed: list[str]  # in a alone
    classes_equal: bool
    sample_of: int | None
    answers: ComparedAnswers


class _Cannot(Exception):
    """The answers cannot be compared; the text says why."""


class VersionComparer:
    """One a serving process."""

    def __init__(self, pairs: VersionPairs, pool: RuntimePool) -> None:
        self._pairs = pairs
        self._pool = pool
        self._one_at_a_time = asyncio.Semaphore(1)

    async def compare(self, ctx: RequestContext, model: str, a: int, b: int) -> VersionComparison:
        """Both versions side by side; raises NotFound. Answers that cannot be had are told of, and the rest is there all the same."""
        pair = await self._pairs.find(ctx, model, a, b)
        names_a, names_b = ([column.name for column in version.columns] for version in (pair.a, pair.b))
        return VersionComparison(
            a=pair.a,
            b=pair.b,
            metrics=metrics_of(pair.a.metrics, pair.b.metrics),
            breaks_callers_of_a=breaks_of(pair.a, pair.b),
            breaks_callers_of_b=breaks_of(pair.b, pair.a),
            columns_added=[name for name in names_b if name not in names_a],
            columns_removed=[name for name in names_a if name not in names_b],
            classes_equal=set(pair.a.classes or ()) == set(pair.b.classes or ()),
            sample_of=pair.sample_of,
            answers=await self._answers(ctx.tenant_id, pair, ctx.deadline),
        )

    async def _answers(self, tenant_id: UUID, pair: VersionPair, deadline: Deadline) -> ComparedAnswers:
        try:
            if not pair.sample:
                raise _Cannot("Neither version was registered with a sample.")
            async with asyncio.timeout(max(0.0, deadline.remaining_s())), self._one_at_a_time:
                of_a = await self._ask(tenant_id, pair.a, pair.route_a, pair, deadline)
                of_b = await self._ask(tenant_id, pair.b, pair.route_b, pair, deadline)
        except _Cannot as why:
            return ComparedAnswers([], unavailable=str(why))
        except TimeoutError:
            return ComparedAnswers([], unavailable="There was not enough time to ask both versions: try again.")
        return _side_by_side(pair, of_a, of_b)

    async def _ask(
        self, tenant_id: UUID, version: ModelVersion, route: VersionRoute | None, pair: VersionPair, deadline: Deadline
    ) -> Scores:
        if route is None:
            raise _Cannot(f"Version {version.number} is {version.status}: only READY versions are asked.")
        try:
            batch = RowChecker(route.signature).rows(pair.sample)
            runtime = await self._pool.get(tenant_id, route)
            return await runtime.infer(batch, deadline)
        except InvalidFeatures as refused:
            raise _Cannot(f"Version {version.number} does not take the sample of version {pair.sample_of}: {refused.message}") from None
        except DeadlineExceeded:
            raise TimeoutError from None
        except AppError as error:
            raise _Cannot(f"Version {version.number} did not answer: {error.message}") from None


def _side_by_side(pair: VersionPair, of_a: Scores, of_b: Scores) -> ComparedAnswers:
    classes_a, classes_b = tuple(pair.a.classes or ()), tuple(pair.b.classes or ())
    rows = [
        _compared(row, _shares(of_a, classes_a, i), _answer(of_a, classes_a, i), _shares(of_b, classes_b, i), _answer(of_b, classes_b, i))
        for i, row in enumerate(pair.sample)
    ]
    differences = [row.difference for row in rows if row.difference is not None]
    return ComparedAnswers(
        rows=rows[:SHOWN_ROWS],
        compared=len(rows),
        agreement=sum(row.agree for row in rows) / len(rows),
        largest_difference=max(differences, default=None),
    )


def _answer(scores: Scores, classes: tuple[str, ...], i: int) -> ComparedAnswer:
    if scores.values is not None:
        return ComparedAnswer(None, None, float(scores.values[i]))
    assert scores.labels is not None  # noqa: S101  a runtime's answer has one of the two
    index = int(scores.labels[i])
    return ComparedAnswer(classes[index], None if scores.probabilities is None else float(scores.probabilities[i, index]), None)


def _shares(scores: Scores, classes: tuple[str, ...], i: int) -> dict[str, float] | None:
    """Each class's probability."""
    return None if scores.probabilities is None else dict(zip(classes, scores.probabilities[i].tolist(), strict=True))


def _compared(
    row: Any, shares_a: dict[str, float] | None, a: ComparedAnswer, shares_b: dict[str, float] | None, b: ComparedAnswer
) -> ComparedRow:
    if a.value is not None and b.value is not None:
        return ComparedRow(row, a, b, math.isclose(a.value, b.value, rel_tol=_EQUAL_TO, abs_tol=_EQUAL_TO), abs(a.value - b.value))
    difference = None
    if shares_a is not None and shares_b is not None:  # a class that one does not know has no chance there
        difference = max(abs(shares_a.get(label, 0.0) - shares_b.get(label, 0.0)) for label in {*shares_a, *shares_b})
    return ComparedRow(row, a, b, a.label == b.label, difference)
