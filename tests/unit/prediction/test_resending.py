"""Rows that one version took, for another one, in whatever form they came."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.kernel.packed import LooseRows, pack
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.prediction.fallbacks import _ANYTHING
from app.prediction.features import RowChecker
from app.prediction.resending import as_taken_by
from app.prediction.routing import RoutedVersion
from app.prediction.shadows import _first_sent
from app.prediction.types import BatchRows
from app.registry.types import VersionRoute, VersionStatus

pytestmark = pytest.mark.unit
ROWS = [[number, number + 0.5] for number in range(300)]


def routed(*names: str) -> RoutedVersion:
    signature = Signature(tuple(Column(name, ColumnType.NUMBER, required=True) for name in names), InputKind.ARRAY)
    return RoutedVersion(VersionRoute(UUID(int=1), 1, Task.REGRESSION, VersionStatus.READY, "", 0, signature, None), RowChecker(signature))


@pytest.mark.parametrize("many", [pack(ROWS), LooseRows(ROWS)])
@pytest.mark.parametrize("as_matrix", [True, False])
async def test_many_rows_go_to_a_version_with_other_columns(many: Any, as_matrix: bool) -> None:
    first, other = routed("a", "b"), routed("b", "a")
    sent = BatchRows(None, {"data": many}) if as_matrix else BatchRows([many], None)
    batch = first.checker.matrix(sent.matrix) if as_matrix else first.checker.rows(sent.rows or [])
    found = await as_taken_by(other, first, batch, sent)
    assert found.numbers.tolist() == [[b, a] for a, b in ROWS]
    kept = _first_sent(sent)
    assert (kept.matrix["data"] if as_matrix else kept.rows) == ROWS[:100]
    assert (_ANYTHING.matrix(sent.matrix) if as_matrix else _ANYTHING.rows(sent.rows)).rows == 300
