from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from app.errors import RateLimited
from app.tenancy.limits.limiter import RateLimiter
from app.tenancy.limits.under_way import UnderWay
from app.tenancy.types import TenantLimits
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

A, B = UUID(int=1), UUID(int=2)
THREE = TenantLimits(concurrency=3)


def processes(path: Path, count: int) -> tuple[list[UnderWay], ManualClock]:
    """So many serving processes of one machine, each with its own map of the one file."""
    clock = ManualClock()
    return [UnderWay(RateLimiter(path, clock), worker, count, longest_s=10) for worker in range(count)], clock


@pytest.mark.parametrize("count", [1, 4])
def test_a_tenant_has_so_many_predictions_under_way_on_a_machine_and_no_more(tmp_path: Path, count: int) -> None:
    made, _ = processes(tmp_path / "limits.bin", count)
    with ExitStack() as under_way:
        for number in range(3):
            under_way.enter_context(made[number % count].one(A, THREE))
        for process in made:
            with pytest.raises(RateLimited) as refused:
                under_way.enter_context(process.one(A, THREE))
            assert refused.value.details == {"retry_after_ms": 100}
            with process.one(B, THREE):
                pass
    for process in made:  # all are over, and a refusal took nothing
        with process.one(A, THREE), process.one(A, THREE), process.one(A, THREE):
            pass


def test_a_prediction_that_fails_is_over_too(tmp_path: Path) -> None:
    (process,), _ = processes(tmp_path / "limits.bin", 1)
    for _ in range(5):
        with pytest.raises(KeyError), process.one(A, TenantLimits(concurrency=1)):
            raise KeyError


def test_what_a_killed_process_had_under_way_is_forgotten(tmp_path: Path) -> None:
    (killed, other), clock = processes(tmp_path / "limits.bin", 2)
    for _ in range(3):
        killed.one(A, THREE).__enter__()
    with pytest.raises(RateLimited), other.one(A, THREE):
        pass
    successor = UnderWay(RateLimiter(tmp_path / "limits.bin", clock), 0, 2, longest_s=10)
    with successor.one(A, THREE), other.one(A, THREE):
        pass
    for _ in range(3):
        killed.one(B, THREE).__enter__()
    clock.advance(11.0)
    with other.one(B, THREE):
        pass


def test_one_that_leaves_and_its_successor_count_beside_each_other(tmp_path: Path) -> None:
    clock = ManualClock()
    leaving, other, successor = (UnderWay.of_worker(RateLimiter(tmp_path / "limits.bin", clock), slot, 2, 10) for slot in (0, 1, 2))
    last, new = leaving.one(A, THREE), successor.one(A, THREE)
    last.__enter__()
    new.__enter__()
    with other.one(A, THREE):
        for process in (other, successor, leaving):
            with pytest.raises(RateLimited), process.one(A, THREE):
                pass
    last.__exit__(None, None, None)  # which takes nothing from what its successor counts
    with other.one(A, THREE), other.one(A, THREE), pytest.raises(RateLimited), other.one(A, THREE):
        pass


def test_a_smaller_limit_counts_from_the_next_prediction_on(tmp_path: Path) -> None:
    (process,), _ = processes(tmp_path / "limits.bin", 1)
    with process.one(A, THREE), process.one(A, THREE), pytest.raises(RateLimited), process.one(A, TenantLimits(concurrency=2)):
        pass
