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
        self._tenants: dict[UUID, OfTenant] = {}

    @classmethod
    def of_worker(cls, limiter: RateLimiter, slot: int, workers: int, longest_s: float) -> UnderWay:
        """Of one of so many serving processes, beside which one more runs while they are replaced one by one.

        One alone tells nobody: its successor may have as many under way as the limit says beside what it still answers itself, for
        it takes nothing new then.
        """
        return cls(limiter, slot, workers + 1, longest_s) if workers > 1 else cls(limiter, longest_s=longest_s)

    def one(self, tenant_id: UUID, limits: TenantLimits) -> OfTenant:
        """A prediction, from entering to leaving it; entering raises RateLimited where as many as the tenant may are under way."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            keys = self._limiter.count_keys(tenant_id, self._slot, self._slots) if self._slots > 1 else None
            tenant = self._tenants[tenant_id] = OfTenant(self._limiter, keys, self._longest_ms)
        tenant.most = limits.concurrency
        return tenant


class OfTenant:
    """What one tenant has under way in this process: entered by each prediction, and left as often.

    `keys`: where that is told, None: nowhere. `most`: how many may be under way on the machine, set before it is entered.
    """

    __slots__ = ("_count", "_keys", "_limiter", "_longest_ms", "most")

    def __init__(self, limiter: RateLimiter, keys: CountKeys | None, longest_ms: int) -> None:
        self._limiter, self._keys, self._longest_ms = limiter, keys, longest_ms
        self._count = self.most = 0

    def __enter__(self) -> None:
        count, most = self._count + 1, self.most
        if count > most or (self._keys is not None and not self._limiter.tell_count(self._keys, count, most, self._longest_ms)):
            raise RateLimited(
                f"{most} predictions of your tenant are under way, as many as may be at once. Wait for one to be answered.",
                retry_after_ms=RETRY_MS,
            )
        self._count = count

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._count -= 1
        if self._keys is not None:
            self._limiter.tell_count(self._keys, self._count, None, self._longest_ms)
