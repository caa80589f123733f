"""What was sent to be predicted, kept where a tenant wants it: sealed under the tenant's data key before it leaves this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import orjson

from app.errors import NotFound
from app.journal.captured import sealed_input
from app.journal.types import LARGEST_SEALED, InputRecord
from app.kernel.context import Action
from app.kernel.signature import ColumnType
from app.tenancy.keys import UnreadableSecret

if TYPE_CHECKING:
    from app.db.session import Database
    from app.journal.types import PredictionRecord
    from app.kernel.context import RequestContext
    from app.kernel.signature import Signature
    from app.kernel.tensors import Batch
    from app.tenancy.directory import TenantDirectory
    from app.tenancy.keys import TenantKeys

_SEAL_BYTES = 28
_MOST_BYTES = LARGEST_SEALED - _SEAL_BYTES
_MOST_ROWS = 100
_MOST_NAME_BYTES = 12_000  # of all columns' names; longer ones are left out, the signature has them
_CELLS_OFF_LOOP = 5_000


async def captured(keys: TenantKeys, record: PredictionRecord, signature: Signature, batch: Batch) -> InputRecord:
    """The checked rows behind `record`, sealed: for the journal, beside the answer."""
    large = min(batch.rows, _MOST_ROWS) * len(signature.columns) > _CELLS_OFF_LOOP
    data = await asyncio.to_thread(canonical, signature, batch) if large else canonical(signature, batch)
    return InputRecord(record.id, record.tenant_id, record.unit_hash, keys.seal(data, _about(record.id)))


def canonical(signature: Signature, batch: Batch) -> bytes:
    """JSON of the rows as they were checked: {"columns": [...], "rows": [[...]], "rowCount": 1, "cut": false}; at most 48,000 bytes.

    Values are in signature order, null where they were missing. `cut`: of the first 100 rows not all fit, or there were more;
    of a single row that does not fit, its first values are kept. `columns`: null where the names alone would fill it.
    """
    names: list[str] | None = [column.name for column in signature.columns]
    if len(orjson.dumps(names)) > _MOST_NAME_BYTES:
        names = None
    width = max(1, len(signature.columns))
    rows = _rows(signature, batch, min(batch.rows, _MOST_ROWS, _MOST_BYTES // (2 * width) + 1))
    while True:
        cut = len(rows) < batch.rows or len(rows[0]) < len(signature.columns)
        data = orjson.dumps({"columns": names, "rows": rows, "rowCount": batch.rows, "cut": cut})
        if len(data) <= _MOST_BYTES:
            return data
        rows = _fewer(rows, _MOST_BYTES / len(data))


def _fewer(rows: list[list[Any]], share: float) -> list[list[Any]]:
    """About `share` of the rows; of a single one, of its values."""
    return rows[: max(1, int(len(rows) * share))] if len(rows) > 1 else [rows[0][: int(len(rows[0]) * share)]]


def opened(keys: TenantKeys, prediction_id: UUID, sealed: bytes) -> Any:
    """What `canonical` made of the prediction's rows; raises UnreadableSecret."""
    return orjson.loads(keys.unseal(sealed, _about(prediction_id)))


class CapturedInputs:
    """Reads what was kept; one a process."""

    def __init__(self, database: Database, directory: TenantDirectory) -> None:
        self._database, self._directory = database, directory

    async def of(self, ctx: RequestContext, prediction_id: str) -> Any:
        """What `canonical` made of the prediction's rows; None where nothing is kept under this id, whosever it is.

        Raises PermissionDenied, Unavailable.
        """
        ctx.require(Action.READ_INPUTS)
        entry = self._directory.by_id(ctx.tenant_id)
        if entry is None:
            raise NotFound("There is no such tenant.")
        try:
            wanted = UUID(prediction_id)
        except ValueError:
            return None
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            sealed = await sealed_input(session, ctx.tenant_id, wanted)
        if sealed is None:
            return None
        try:
            return opened(entry.keys, wanted, sealed)
        except UnreadableSecret:
            raise NotFound("The input of this prediction was changed in the database, and is not readable any more.") from None


def _rows(signature: Signature, batch: Batch, count: int) -> list[list[Any]]:
    """The first `count` rows as plain values in signature order."""
    columns: list[list[Any]] = []
    numbers, texts = iter(batch.numbers[:count].T), iter(batch.texts)
    for column in signature.columns:
        if column.type is ColumnType.STRING:
            columns.append(list(next(texts)[:count]))
            continue
        values = next(numbers)
        kind = {ColumnType.BOOLEAN: bool, ColumnType.INTEGER: int}.get(column.type, float)
        missing = np.isnan(values).tolist()
        columns.append([None if gone else kind(value) for value, gone in zip(values.tolist(), missing, strict=True)])
    return [list(row) for row in zip(*columns, strict=True)]


def _about(prediction_id: UUID) -> bytes:
    return b"input/" + prediction_id.bytes
