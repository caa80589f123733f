"""Whose turn it is to be validated, and what of a report is kept."""

from __future__ import annotations

from uuid import UUID

import pytest

from app.kernel.inspection import InspectionReport
from app.kernel.signature import Column, ColumnType, InputKind, Signature
from app.registry.types import PendingValidation
from app.registry.validation import Turns, bounded

pytestmark = pytest.mark.unit

MODEL = UUID(int=0)


def pending(tenant: int, number: int) -> PendingValidation:
    return PendingValidation(UUID(int=tenant), MODEL, number)


def report(*columns: Column, classes: tuple[str, ...] | None = ("no", "yes")) -> InspectionReport:
    return InspectionReport(None, Signature(columns, InputKind.FRAME), classes, "Ridge", {}, ())


def test_a_tenant_with_much_to_validate_does_not_go_before_another() -> None:
    turns = Turns()
    for number in range(50):
        turns.add(pending(1, number))
    turns.add(pending(1, 0))
    turns.take()
    turns.add(pending(2, 7))
    taken = []
    while turns:
        taken.append(turns.take())
    assert pending(2, 7) in taken[:2]
    assert len(taken) == 50
    assert [each.number for each in taken if each.tenant_id == UUID(int=1)] == list(range(1, 50))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (report(Column("a\0", ColumnType.NUMBER)), "no NUL"),
        (report(Column("a" * 257, ColumnType.NUMBER)), "256 characters"),
        (report(*(Column(f"c{i}", ColumnType.NUMBER) for i in range(10_001))), "10,001 columns"),
        (report(Column("a", ColumnType.STRING, categories=("x\0",))), "NUL"),
        (report(Column("a", ColumnType.STRING, categories=("x" * 1_000_001,))), "1,000,001 characters"),
        (report(Column("a", ColumnType.NUMBER), classes=("a\0b", "c")), "no NUL"),
        (report(Column("a", ColumnType.NUMBER), classes=("a" * 257, "c")), "256 characters"),
        (report(Column("a", ColumnType.NUMBER), classes=tuple(map(str, range(1_001)))), "1,001 classes"),
    ],
)
def test_an_artifact_that_names_more_than_can_be_kept_is_failed_with_the_reason(found: InspectionReport, why: str) -> None:
    assert why in (bounded(found).failure or "")


def test_a_report_within_bounds_stays_as_it_is() -> None:
    for found in (report(Column("a", ColumnType.NUMBER)), report(Column("a", ColumnType.NUMBER), classes=None)):
        assert bounded(found) is found
