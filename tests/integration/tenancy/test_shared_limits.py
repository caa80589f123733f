from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from app.tenancy.limits.limiter import RateLimiter
from app.tenancy.types import TenantLimits
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

TENANT = UUID(int=1)
# A budget that regains nothing while the test runs: what all processes together got through is exact.
LIMITS = TenantLimits(requests_per_second=1, burst=3_000, rows_per_day=3_000)
WORKER = """
import sys
from pathlib import Path
from uuid import UUID
from app.tenancy.limits.limiter import RateLimiter
from app.tenancy.types import TenantLimits
from tests.support.clock import ManualClock

limiter = RateLimiter(Path(sys.argv[1]), ManualClock())
limiter._storage.memory.patience_s = 60  # on a crowded machine too, nobody goes on without the lock
limits = TenantLimits(requests_per_second=1, burst=3_000, rows_per_day=3_000)
print("ready", flush=True)
sys.stdin.readline()
requests = rows = 0
for _ in range(int(sys.argv[2])):
    requests += limiter.take(UUID(int=1), limits).allowed
    rows += 3 * limiter.take_rows(UUID(int=1), limits, 3).allowed
print(requests, rows, flush=True)
sys.stdin.readline()
"""


def start(path: Path, takes: int, worker: str = WORKER) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", worker, str(path), str(takes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_four_processes_share_one_budget(tmp_path: Path) -> None:
    """They start together on a machine without the file, and all make it at once."""
    processes = [start(tmp_path / "limits.bin", 1_500) for _ in range(4)]
    try:
        assert [line(process) for process in processes] == ["ready"] * 4
        for process in processes:
            say_go(process)
        counts = [tuple(map(int, line(process).split())) for process in processes]
    finally:
        for process in processes:
            finish(process)
    assert sum(requests for requests, _ in counts) == 3_000
    assert sum(rows for _, rows in counts) == 3_000


def test_a_process_killed_while_it_takes_leaves_the_budget_usable(tmp_path: Path) -> None:
    path = tmp_path / "limits.bin"
    process = start(path, 10**9)
    try:
        assert line(process) == "ready"
        limiter = RateLimiter(path, ManualClock())
        say_go(process)
        while limiter.peek(TENANT, LIMITS).requests_available > 2_000:
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        finish(process)
    left = limiter.peek(TENANT, LIMITS).requests_available
    assert [limiter.take(TENANT, LIMITS).allowed for _ in range(left + 1)] == [True] * left + [False]
    limiter.close()


def test_a_process_stopped_inside_the_lock_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "limits.bin"
    holder = RateLimiter(path, ManualClock())
    other = RateLimiter(path, ManualClock())  # a file description of its own, as another process has
    with holder._storage.memory:
        assert all(other.take(TENANT, LIMITS).allowed for _ in range(100))
    assert other.peek(TENANT, LIMITS).requests_available == 2_900
    holder.close()
    other.close()


def test_a_process_that_comes_while_another_takes_alone_shares_its_budget_to_the_last_token(tmp_path: Path) -> None:
    path, limits = tmp_path / "limits.bin", TenantLimits(requests_per_second=1, burst=60_000, rows_per_day=60_000)
    first = start(path, 60_000, WORKER.replace("3_000", "60_000"))
    try:
        assert line(first) == "ready"
        say_go(first)
        limiter = RateLimiter(path, ManualClock())  # while the other takes without a lock
        limiter._storage.memory.patience_s = 60
        requests = rows = 0
        while limiter.peek(TENANT, limits).requests_available or limiter.peek(TENANT, limits).rows_left_today >= 3:
            requests += limiter.take(TENANT, limits).allowed
            rows += 3 * limiter.take_rows(TENANT, limits, 3).allowed
        taken = tuple(map(int, line(first).split()))
    finally:
        finish(first)
    assert requests > 0
    assert (requests + taken[0], rows + taken[1]) == (60_000, 60_000)
    limiter.close()
