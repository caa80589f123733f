"""The fault tests that take seconds. `make chaos` has all of them, with their lines about time; here counts what was lost or mixed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools.chaos.rows import Stage
from tools.chaos.scenarios import database, journal, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.chaos.rows import Claim

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("chaos")]

EMBEDDED = [processes.kill_a_serving_process, journal.full_while_durable, journal.torn]
EXTERNAL = [database.stopped, database.cut_in_a_commit, database.missing_partition]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage(seconds=1.0, outage_s=4.0, one_awake=False)
    yield made
    made.forget()


def holds(run: Callable[[Stage], list[Claim]], stage: Stage) -> None:
    broken = [claim.measured for claim in run(stage) if not claim.holds and not claim.timed]
    assert broken == []


def test_after_kill_9_of_everything_the_history_is_clean(stage: Stage) -> None:
    holds(processes.kill_everything_once, stage)


@pytest.mark.slow
@pytest.mark.parametrize("run", [*EMBEDDED, *EXTERNAL], ids=lambda run: run.__name__)
def test_whatever_breaks_nothing_is_lost_or_mixed_up(run: Callable[[Stage], list[Claim]], stage: Stage) -> None:
    holds(run, stage)
