"""Rows that one version took, for another one: checked again where its columns are others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from app.kernel.packed import listed
from app.prediction.features import CELLS_OFF_LOOP
from app.prediction.types import BatchRows

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from app.kernel.tensors import Batch
    from app.prediction.routing import RoutedVersion


async def as_taken_by(routed: RoutedVersion, taken_by: RoutedVersion, batch: Batch, sent: Any, threads: Executor | None = None) -> Batch:
    """The rows of `batch` as `routed` takes them; raises InvalidFeatures or InvalidInput where it does not.

    `sent`: the same rows as they came, one or BatchRows; a list's values are in the order of `taken_by`'s columns.
    """
    signature, theirs = routed.route.signature, taken_by.route.signature
    if signature == theirs:
        return batch
    names = [column.name for column in theirs.columns]
    if batch.rows * len(signature.columns) > CELLS_OFF_LOOP:
        return await asyncio.get_running_loop().run_in_executor(threads, _checked, routed, sent, names)
    return _checked(routed, sent, names)


def _checked(routed: RoutedVersion, sent: Any, names: list[str]) -> Batch:
    return routed.checker.rows(_named(sent, names))


def _named(sent: Any, names: list[str]) -> list[Any]:
    """Rows by column name."""
    if not isinstance(sent, BatchRows):
        rows = [sent]
    elif sent.rows is not None:
        rows = listed(sent.rows)
    else:
        rows, names = listed(sent.matrix["data"]), sent.matrix.get("columns") or names
    return [dict(zip(names, row, strict=True)) if isinstance(row, list) else row for row in rows]
