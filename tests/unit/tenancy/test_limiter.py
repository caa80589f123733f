from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import STRATEGIES

from app.errors import ConfigurationError, QuotaExceeded
from app.tenancy.limits.limiter import FAILURES_AT_ONCE, Decision, RateLimiter
from app.tenancy.limits.shared_memory import KEY_BYTES, SharedMemory
from app.tenancy.limits.storage import COUNTERS, REQUESTS, SLOTS, STRANGERS, Gcra, SharedMemoryStorage, storage_uri
from app.tenancy.types import TenantLimits
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit

CLINIC, SHOP = UUID(int=1), UUID(int=2)
LIMITS = TenantLimits(requests_per_second=10, burst=20, rows_per_day=100)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limiter(tmp_path: Path, clock: ManualClock) -> Iterator[RateLimiter]:
    limiter = RateLimiter(tmp_path / "limits.bin", clock)
    yield limiter
    limiter.close()


def drain(limiter: RateLimiter, tenant_id: UUID = CLINIC, limits: TenantLimits = LIMITS) -> int:
    taken = 0
    while limiter.take(tenant_id, limits).allowed:
        taken += 1
    return taken


def test_the_burst_goes_through_at_once_and_then_the_rate(limiter: RateLimiter, clock: ManualClock) -> None:
    assert drain(limiter) == 20
    clock.advance(0.35)
    assert drain(limiter) == 3
    clock.advance(60)
    assert drain(limiter) == 20


def test_a_decision_says_what_is_left_and_how_long_to_wait(limiter: RateLimiter, clock: ManualClock) -> None:
    assert limiter.take(CLINIC, LIMITS, 15) == Decision(True, 20, 5, 0, 2)
    assert limiter.take(CLINIC, LIMITS, 8) == Decision(False, 20, 5, 300, 2)
    clock.advance(0.3)
    assert limiter.take(CLINIC, LIMITS, 8) == Decision(True, 20, 0, 0, 2)


def test_a_cost_over_the_burst_is_refused_for_ever_and_says_so(limiter: RateLimiter) -> None:
    assert limiter.take(CLINIC, LIMITS, 21) == Decision(False, 20, 20, None, 0)


def test_tenants_do_not_share_a_budget(limiter: RateLimiter) -> None:
    drain(limiter)
    assert drain(limiter, SHOP) == 20


def test_changed_limits_count_from_the_next_request_and_forgive_nothing(limiter: RateLimiter) -> None:
    drain(limiter)
    assert limiter.take(CLINIC, TenantLimits(requests_per_second=10, burst=50)).remaining == 29
    assert limiter.take(CLINIC, TenantLimits(requests_per_second=10, burst=5)).allowed is False


def test_a_restarted_process_finds_the_budget_as_it_was(tmp_path: Path, clock: ManualClock, limiter: RateLimiter) -> None:
    drain(limiter)
    limiter.charge_rows(CLINIC, LIMITS, 60)
    again = RateLimiter(tmp_path / "limits.bin", clock)
    assert drain(again) == 0
    assert again.peek(CLINIC, LIMITS).rows_left_today == 40
    again.close()


def test_rows_are_counted_by_utc_day_and_refused_whole(limiter: RateLimiter, clock: ManualClock) -> None:
    limiter.charge_rows(CLINIC, LIMITS, 90)
    with pytest.raises(QuotaExceeded, match="11 rows of the day's 100, of which 10 are left") as caught:
        limiter.charge_rows(CLINIC, LIMITS, 11)
    assert caught.value.details == {"retry_after_ms": 12 * 3_600_000}
    limiter.charge_rows(CLINIC, LIMITS, 10)
    assert limiter.take_rows(CLINIC, LIMITS, 1) == Decision(False, 100, 0, 12 * 3_600_000, 12 * 3600)
    clock.advance(12 * 3600 - 0.001)
    assert limiter.take_rows(CLINIC, LIMITS, 1).allowed is False
    clock.advance(0.001)
    assert limiter.take_rows(CLINIC, LIMITS, 100).remaining == 0


def test_rows_that_never_fit_into_a_day_are_refused_for_ever(limiter: RateLimiter) -> None:
    with pytest.raises(QuotaExceeded, match="never fit") as caught:
        limiter.charge_rows(CLINIC, LIMITS, 101)
    assert caught.value.details == {}


def test_a_look_at_the_quota_takes_nothing(limiter: RateLimiter, clock: ManualClock) -> None:
    limiter.take(CLINIC, LIMITS, 3)
    limiter.charge_rows(CLINIC, LIMITS, 7)
    for _ in range(2):
        quota = limiter.peek(CLINIC, LIMITS)
        assert (quota.requests_available, quota.rows_left_today) == (17, 93)
        assert quota.resets_at.isoformat() == "2026-03-02T00:00:00+00:00"


def test_nothing_is_ever_given_back_by_a_negative_cost(limiter: RateLimiter) -> None:
    with pytest.raises(ValueError, match="negative"):
        limiter.take(CLINIC, LIMITS, -1)
    with pytest.raises(ValueError, match="negative"):
        limiter.take_rows(CLINIC, LIMITS, -1)


def test_an_address_that_fails_too_often_may_not_try(limiter: RateLimiter, clock: ManualClock) -> None:
    for _ in range(FAILURES_AT_ONCE):
        assert limiter.may_try("10.0.0.1").allowed
        assert limiter.take_failure("10.0.0.1").allowed
    assert limiter.take_failure("10.0.0.1").allowed is False
    assert limiter.may_try("10.0.0.1") == Decision(False, FAILURES_AT_ONCE, 0, 50, 10)
    assert limiter.may_try("10.0.0.2").allowed
    clock.advance(0.05)
    assert limiter.may_try("10.0.0.1").allowed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("unix", "unix", True),
        ("unix", "", False),
    ],
)
def test_an_address_stands_for_its_network(limiter: RateLimiter, one: str, other: str, same: bool) -> None:
    for _ in range(FAILURES_AT_ONCE):
        limiter.take_failure(one)
    assert limiter.may_try(other).allowed is not same


def test_a_flood_of_strangers_pushes_out_no_tenant(limiter: RateLimiter) -> None:
    drain(limiter)
    for number in range(2_000):
        limiter.take_failure(f"10.0.{number // 256}.{number % 256}")
    assert limiter._storage.memory.table(STRANGERS) is not limiter._storage.memory.table(REQUESTS)
    assert drain(limiter) == 0


def test_neither_a_dot_env_file_nor_the_environment_switches_it_off(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("RATELIMIT_ENABLED=false\nRATELIMIT_STRATEGY=fixed-window\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATELIMIT_ENABLED", "false")
    monkeypatch.setenv("RATELIMIT_IN_MEMORY_FALLBACK_ENABLED", "true")
    limiter = RateLimiter(tmp_path / "limits.bin", clock)
    assert limiter._limiter.enabled is True
    assert drain(limiter) == 20
    limiter.close()


def test_the_file_is_private_and_its_place_may_have_any_name(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "hömé #1 100%?x" / "limits.bin"
    limiter = RateLimiter(path, clock)
    assert path.stat().st_mode & 0o777 == 0o600
    assert drain(limiter) == 20
    limiter.close()


def test_a_file_of_another_layout_is_replaced_and_one_that_cannot_be_made_stops_the_start(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "limits.bin"
    path.write_bytes(b"something else")
    limiter = RateLimiter(path, clock)
    assert drain(limiter) == 20
    limiter.close()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        RateLimiter(tmp_path / "file" / "limits.bin", clock)


def test_a_clock_that_began_anew_costs_one_window_at_most(tmp_path: Path) -> None:
    late, early = ManualClock(), ManualClock()
    late.advance(10_000_000)
    limiter = RateLimiter(tmp_path / "limits.bin", late)
    drain(limiter)
    limiter.close()
    rebooted = RateLimiter(tmp_path / "limits.bin", early)
    assert drain(rebooted) == 0
    early.advance(2)
    assert drain(rebooted) == 20
    rebooted.close()


# The library's own contracts: the storage and the strategy are whole, so that anything of `limits` may use them.


@pytest.fixture
def storage(tmp_path: Path, clock: ManualClock) -> Iterator[SharedMemoryStorage]:
    storage = SharedMemoryStorage(storage_uri(tmp_path / "limits.bin"), clock=clock)
    yield storage
    storage.memory.close()


def test_the_strategy_takes_any_limit_of_the_library(storage: SharedMemoryStorage, clock: ManualClock) -> None:
    strategy, item = STRATEGIES["gcra"](storage), parse("5/minute")
    assert [strategy.hit(item, "a") for _ in range(6)] == [True] * 5 + [False]
    assert strategy.test(item, "a") is False
    assert strategy.get_window_stats(item, "a").remaining == 0
    clock.advance(12)
    assert strategy.test(item, "a") is True
    strategy.clear(item, "a")
    assert strategy.get_window_stats(item, "a").remaining == 5


def test_the_storage_counts_as_the_library_asks(storage: SharedMemoryStorage, clock: ManualClock) -> None:
    assert [storage.incr("k", 60), storage.incr("k", 60, 4), storage.get("k")] == [1, 5, 5]
    assert storage.get_expiry("k") == clock.time_ms() / 1000 + 60
    clock.advance(60)
    assert storage.get("k") == 0
    assert storage.incr("k", 60) == 1
    storage.clear("k")
    assert storage.get("k") == 0
    storage.incr("k", 60)
    storage.reset()
    assert storage.get("k") == 0
    assert storage.check()


def test_the_strategy_refuses_a_storage_that_processes_do_not_share() -> None:
    with pytest.raises(TypeError, match="turnout-shared"):
        Gcra(object())
    assert MemoryStorage is not SharedMemoryStorage


# The table.


def test_a_full_table_gives_up_what_would_expire_first_and_stays_bounded(tmp_path: Path) -> None:
    memory = SharedMemory(tmp_path / "small.bin", {"t": 1})  # one home, sixteen slots in all
    table, keys = memory.table("t"), [os.urandom(KEY_BYTES) for _ in range(17)]
    for number, key in enumerate(keys):
        place, _, _ = table.find(key, 0)
        table.write(place, key, number, 100 + number)
    assert table.find(keys[0], 0)[1:] == (0, 0)
    assert [table.find(key, 0)[1] for key in keys[1:]] == list(range(1, 17))
    memory.close()


def test_an_expired_slot_is_taken_before_a_living_one(tmp_path: Path) -> None:
    memory = SharedMemory(tmp_path / "small.bin", {"t": 1})
    table, keys = memory.table("t"), [os.urandom(KEY_BYTES) for _ in range(17)]
    for number, key in enumerate(keys):
        now = 0 if number < 16 else 150
        place, _, _ = table.find(key, now)
        table.write(place, key, number, 100 if number == 7 else 200)
    assert [number for number, key in enumerate(keys) if table.find(key, 150)[2] == 0] == [7]
    memory.close()


def _locks(memory: SharedMemory, path: Path) -> bool:
    with memory, path.open() as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_process_takes_the_lock_once_another_is_there_and_needs_none_when_it_is_alone_again(tmp_path: Path) -> None:
    path = tmp_path / "small.bin"
    first = SharedMemory(path, {"t": 1})
    assert not _locks(first, path)
    second = SharedMemory(path, {"t": 1})
    assert _locks(first, path)
    assert _locks(second, path)
    first.close()
    third = SharedMemory(path, {"t": 1})
    assert _locks(third, path)
    assert _locks(second, path)
    second.close()
    third.close()
    last = SharedMemory(path, {"t": 1})
    assert not _locks(last, path)
    last.close()


def test_beside_a_process_that_may_know_nothing_of_announcements_the_lock_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "small.bin"
    SharedMemory(path, {"t": 1}).close()
    (tmp_path / ".small.bin.others").unlink()  # as an earlier version leaves its file
    beside = SharedMemory(path, {"t": 1})
    assert _locks(beside, path)
    beside.close()
    later = SharedMemory(path, {"t": 1})
    assert not _locks(later, path)
    later.close()


def test_the_tables_hold_many_tenants_side_by_side(limiter: RateLimiter) -> None:
    tenants = [uuid4() for _ in range(3_000)]
    for tenant_id in tenants:
        limiter.take(tenant_id, LIMITS, 7)
    assert {limiter.peek(tenant_id, LIMITS).requests_available for tenant_id in tenants} == {13}
    assert SLOTS[COUNTERS] >= 100_000
