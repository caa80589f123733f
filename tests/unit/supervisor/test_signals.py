"""A request to stop is heard, wherever the main thread was when it came."""

import os
import signal

import pytest

from app.supervisor.signals import StopRequested, StopSignals

pytestmark = pytest.mark.unit


class Finaliser:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))  # the handler runs between two steps of this, inside a finaliser


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_a_finaliser_swallowed_is_still_heard() -> None:
    with StopSignals() as signals:
        made = Finaliser()
        del made
        assert signals.count == 1
        with pytest.raises(StopRequested, match="SIGTERM"):
            signals.check()


def test_the_first_signal_stops_and_later_ones_only_count() -> None:
    with StopSignals() as signals:
        signals.check()
        with pytest.raises(StopRequested, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.impatient


def test_sighup_asks_for_new_processes_once_and_stops_nothing() -> None:
    with StopSignals() as signals:
        assert not signals.roll_asked()
        os.kill(os.getpid(), signal.SIGHUP)
        signals.check()
        assert (signals.roll_asked(), signals.roll_asked(), signals.count) == (True, False, 0)


def test_sighup_of_a_terminal_that_was_closed_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    there = iter([True, False])
    monkeypatch.setattr("app.supervisor.signals._has_terminal", lambda: next(there))
    with StopSignals() as signals:
        with pytest.raises(StopRequested, match="SIGHUP"):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not signals.roll_asked()
