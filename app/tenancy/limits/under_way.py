"""How many predictions of a tenant are under way on this machine, over all its serving processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import RateLimited

if TYPE_CHECKING:
    from types import TracebackType
    from uuid import UUID

    from app.tenancy.limits.limiter import CountKeys, RateLimiter
    from app.tenancy.types import TenantLimits

RETRY_MS = 100


class UnderWay:
    """Of one serving process, its loop's alone. Each process writes its own count where the others see it.

    `slot` of `slots`: which place is this process's, and nobody else's for as long as it runs. What a process that was killed had under
    way is forgotten after `longest_s`, the longest that a request may take, or when the next one in its slot counts for the same tenant.
    """

    def __init__(self, limiter: RateLimiter, slot: int = 0, slots: int = 1, longest_s: float = 10.0) -> None:
        self._limiter, self._slot, self._slots = limiter, slot, slots
        self._longest_ms = int(longest_s * 1000) + 1000
        self._counts: dict[UUID, int] = {}
        self._keys: dict[UUID, CountKeys] = {}

    @classmethod
    def of_worker(cls, limiter: RateLimiter, slot: int, workers: int, longest_s: float) -> UnderWay:
        """Of one of so many serving processes, beside which one more runs while they are replaced one by one.

        One alone tells nobody: its successor may have as many under way as the limit says beside what it still answers itself, for
        it takes nothing new then.
        """
        return cls(limiter, slot, workers + 1, longest_s) if workers > 1 else cls(limiter, longest_s=longest_s)

    def one(self, tenant_id: UUID, limits: TenantLimits) -> Place:
        """A prediction, from entering to leaving it; entering raises RateLimited where as many as the tenant may are under way."""
        return Place(self, tenant_id, limits.concurrency)

    def begin(self, tenant_id: UUID, most: int) -> None:
        count = self._counts.get(tenant_id, 0) + 1
        if count > most or (self._slots > 1 and not self._tell(tenant_id, count, most)):
            raise RateLimited(
                f"{most} predictions of your tenant are under way, as many as may be at once. Wait for one to be answered.",
                retry_after_ms=RETRY_MS,
            )
        self._counts[tenant_id] = count

    def end(self, tenant_id: UUID) -> None:
        count = self._counts[tenant_id] - 1
        if count:
            self._counts[tenant_id] = count
        else:
            del self._counts[tenant_id]
        if self._slots > 1:
            self._tell(tenant_id, count, None)

    def _tell(self, tenant_id: UUID, count: int, most: int | None) -> bool:
        keys = self._keys.get(tenant_id)
        if keys is None:
            keys = self._keys[tenant_id] = self._limiter.count_keys(tenant_id, self._slot, self._slots)
        return self._limiter.tell_count(keys, count, most, self._longest_ms)


class Place:
    """One prediction under way."""

    __slots__ = ("_most", "_tenant_id", "_under_way")

    def __init__(self, under_way: UnderWay, tenant_id: UUID, most: int) -> None:
        self._under_way, self._tenant_id, self._most = under_way, tenant_id, most

    def __enter__(self) -> None:
        self._under_way.begin(self._tenant_id, self._most)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._under_way.end(self._tenant_id)
