"""A tenant's usage, put together from the journal's, the registry's and the prices."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from app.errors import InvalidInput
from app.journal.usage import is_logged, usage_between, usage_of_days
from app.kernel.context import Action
from app.registry.stored import held_between, held_by_version
from app.usage.types import DayUsage, Quantities, Usage, VersionUsage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.journal.types import ModelUsage
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.usage.prices import Prices

LONGEST = timedelta(days=400)
LONGEST_BY_DAY = timedelta(days=31)
_DAY = timedelta(days=1)


class UsageService:
    """One a process."""

    def __init__(self, database: Database, prices: Prices, clock: Clock) -> None:
        self._database, self._prices, self._clock = database, prices, clock

    async def usage(self, ctx: RequestContext, start: datetime, end: datetime) -> Usage:
        """What the caller's tenant used from `start` up to, not including, `end`.

        Whole UTC days are added up as they landed, and stay when the log's retention takes their records; of a day that `start` or
        `end` cuts, the log's own records are counted, as long as they are kept. Today is whole where `end` is in the future.
        Raises PermissionDenied, Unavailable, InvalidInput for no time, more than 400 days, or a part of a day that the log forgot.
        """
        ctx.require(Action.READ_USAGE)
        _check(start, end, LONGEST)
        now = self._clock.now()
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            answered = await self._answered(session, ctx.tenant_id, start, end, now)
            held = await held_between(session, ctx.tenant_id, start, min(end, now))
        by_model = _by_model(answered)
        used = Quantities(
            sum(each.requests for each in by_model),
            sum(each.rows for each in by_model),
            sum(each.compute_us for each in by_model),
            held.byte_us,
        )
        return Usage(used, held.size_bytes, self._prices.cost_micros(used), self._prices.currency, tuple(by_model))

    async def by_day(self, ctx: RequestContext, start: datetime, end: datetime) -> list[DayUsage]:
        """The same by UTC day, model and version, with the bytes of each version's artifact; of 31 days at the most. Raises as `usage`."""
        ctx.require(Action.READ_USAGE)
        _check(start, end, LONGEST_BY_DAY)
        now = self._clock.now()
        last = min(end, now) - timedelta(microseconds=1)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            answered = await self._answered(session, ctx.tenant_id, start, end, now)
            held = await held_by_version(session, ctx.tenant_id, _utc(start).date(), _utc(last).date(), now)
        found: dict[tuple[date, str | None, int | None], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for each in answered:
            totals = found[each.day.date(), each.model, each.version]
            totals[:3] = totals[0] + each.requests, totals[1] + each.rows, totals[2] + each.compute_us
        for kept in held:
            found[kept.day, kept.model, kept.version][3] += kept.size_bytes
        return [DayUsage(*key, *totals) for key, totals in sorted(found.items(), key=lambda item: _order(*item[0]))]

    async def _answered(self, session: AsyncSession, tenant_id: UUID, start: datetime, end: datetime, now: datetime) -> list[ModelUsage]:
        first, after = _midnight(start + _DAY - timedelta(microseconds=1)), _midnight(end)
        if end > now:  # nothing of the rest of the day is there
            after = _midnight(end + _DAY - timedelta(microseconds=1))
        if after < first:
            return await self._part(session, tenant_id, start, end)
        found = await self._part(session, tenant_id, start, first)
        found += await usage_of_days(session, tenant_id, first.date(), after.date())
        return found + (await self._part(session, tenant_id, after, end) if after < end else [])

    @staticmethod
    async def _part(session: AsyncSession, tenant_id: UUID, start: datetime, end: datetime) -> list[ModelUsage]:
        """Of a part of one day. Raises InvalidInput where it cannot be told any more."""
        if start == end:
            return []
        found = await usage_between(session, tenant_id, start, end)
        day = _midnight(start)
        if found or await is_logged(session, tenant_id, day):
            return found
        if await usage_of_days(session, tenant_id, day.date(), (day + _DAY).date()):
            raise InvalidInput(f"The log keeps no records of {day:%Y-%m-%d} any more: ask for that whole day, from midnight UTC.")
        return []


def _check(start: datetime, end: datetime, longest: timedelta) -> None:
    if start >= end:
        raise InvalidInput("from must be before to.")
    if end - start > longest:
        raise InvalidInput(f"The time between from and to is longer than {longest.days} days: ask in parts.")
    if start.year < 1970 or end.year > 9000:
        raise InvalidInput("from and to must be times from 1970 to 9000.")


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _midnight(moment: datetime) -> datetime:
    """At which the moment's UTC day began."""
    return datetime.combine(_utc(moment).date(), time(), UTC)


def _order(day: date, model: str | None, version: int | None) -> tuple[date, str, int]:
    return day, model or "", version or 0


def _by_model(answered: Iterable[ModelUsage]) -> list[VersionUsage]:
    totals: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for each in answered:
        total = totals[each.model, each.version]
        total[:] = total[0] + each.requests, total[1] + each.rows, total[2] + each.compute_us
    return [VersionUsage(*key, *total) for key, total in sorted(totals.items())]
