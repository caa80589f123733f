"""Erasing a unit: a tombstone, its rows gone from what the service may change, and the log swept by the owner soon after."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from app.audit import store as audit
from app.audit.rules import check_reason
from app.db.outbox import announce
from app.errors import InvalidInput, NotFound
from app.journal.types import ERASURE_GRACE
from app.kernel.context import Action
from app.kernel.names import check_unit
from app.tenancy import tombstones
from app.tenancy.types import Erasure

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.kernel.context import RequestContext
    from app.tenancy.changing import Changes
    from app.tenancy.directory import TenantDirectory

_PATIENCE_S = 5.0
_SPARE_S = 1.0  # of the request's time, for the answer itself
_LOOK_EVERY_S = 0.1


class UnitData(Protocol):
    """What another room knows of units and lets go of in the transaction of the erasure."""

    async def forget_units(self, session: AsyncSession, tenant_id: UUID, hashes: Collection[str], until: datetime) -> int:
        """How many rows went; of what happened after `until` none does. Raises Unavailable."""


class ErasureService:
    """One a process. `database`: with timeouts that leave room for a fold of the tenant."""

    def __init__(self, database: Database, directory: TenantDirectory, data: UnitData, changes: Changes) -> None:
        self._database, self._directory, self._data, self._changes = database, directory, data, changes
        self._clock = changes.clock

    async def erase_unit(self, ctx: RequestContext, unit: str, reason: str) -> Erasure:
        """What was erased, with the rows so far: the log is swept within seconds, and what arrives late is never kept.

        Erased again, a unit that came back loses its new life, too. The audit log names the erasure, not the unit.
        Raises PermissionDenied, InvalidInput, Unavailable.
        """
        ctx.require(Action.ERASE)
        check_unit(unit)
        _check_nameless(unit, check_reason(reason))
        entry = self._directory.by_id(ctx.tenant_id)
        if entry is None:
            raise NotFound("There is no such tenant.")
        hashes = entry.keys.unit_pseudonyms(unit)
        erasure_id, at = uuid4(), self._clock.now()
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            rows = await self._data.forget_units(session, ctx.tenant_id, hashes, at + ERASURE_GRACE)
            await tombstones.bury(session, ctx.tenant_id, hashes, Erasure(erasure_id, at, rows))
            about = {"action": "eraseUnit", "subject": f"erasure:{erasure_id}", "reason": reason}
            await audit.record(session, ctx, self._clock, **about)
            generation = await announce(session, ctx.tenant_id)  # overrides decide
        await self._changes.take_effect(ctx.tenant_id, generation)
        return Erasure(erasure_id, at, await self._rows(ctx, erasure_id))

    async def _rows(self, ctx: RequestContext, erasure_id: UUID) -> int:
        """Once the log is swept, or as many as went until nobody waits any longer."""
        end = self._clock.monotonic() + min(_PATIENCE_S, ctx.deadline.remaining_s() - _SPARE_S)
        while True:
            async with self._database.tenant_tx(ctx.tenant_id) as session:
                rows, swept = await tombstones.progress(session, ctx.tenant_id, erasure_id)
            if swept or self._clock.monotonic() >= end:
                return rows
            await asyncio.sleep(_LOOK_EVERY_S)


def _check_nameless(unit: str, reason: str) -> None:
    """The reason stays in the audit log for ever."""
    if re.search(rf"(?<!\w){re.escape(unit)}(?!\w)", reason):
        raise InvalidInput("reason names the unit, and it is kept: say why without it.")
