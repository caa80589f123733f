"""`python -m app.journal --home FOLDER`: the drain of this machine. The log role's URL comes in TURNOUT_DATABASE_LOG_URL."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog

from app.errors import ConfigurationError
from app.journal.depth import read_depth
from app.journal.drain import Drain, collect_seldom
from app.journal.layout import DRAIN_LOCK, take_lock
from app.journal.sink import PostgresSink
from app.kernel.clock import SystemClock
from app.kernel.home import SPOOL
from app.observability.logs import configure

_LAST_EFFORT_S = 1.5
_log = structlog.get_logger(__name__)


def main(arguments: list[str]) -> int:
    """Exit status: 0 emptied and ended, 1 ended with records in the spool, 2 refused to start."""
    parser = argparse.ArgumentParser(prog="python -m app.journal")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--last-effort", type=float, default=_LAST_EFFORT_S, help="seconds to empty the spool after SIGTERM")
    options = parser.parse_args(arguments)
    environ = os.environ  # noqa: TID251  the edge of a process of its own
    configure(environ.get("TURNOUT_LOG_LEVEL", "info"), "drain")
    try:
        spool, log_url = options.home / SPOOL, environ.get("TURNOUT_DATABASE_LOG_URL", "")
        if not log_url:
            raise ConfigurationError("TURNOUT_DATABASE_LOG_URL is not set: the drain writes to the database as the log role.")
        lock = _only_drain(spool)
    except ConfigurationError as error:
        _log.error("journal.drain_refused", reason=str(error))
        return 2
    clock = SystemClock()
    collect_seldom()
    staying = asyncio.run(_drain(Drain(spool, PostgresSink(log_url), clock), options.last_effort))
    if staying:
        left = read_depth(spool, clock)
        _log.error("journal.not_emptied", size_bytes=left.bytes, records=left.records, held=left.held, waiting_for=left.waiting_for)
    os.close(lock)
    return 1 if staying else 0


def _only_drain(spool: Path) -> int:
    """The descriptor that keeps every other drain away for as long as it is open."""
    try:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take_lock(spool / DRAIN_LOCK)
    except OSError as error:
        raise ConfigurationError(f"The spool folder {spool} cannot be used ({error.strerror}): set TURNOUT_HOME.") from None
    if lock is None:
        raise ConfigurationError(f"Another drain works on {spool}: one a machine.")
    return lock


async def _drain(drain: Drain, last_effort_s: float) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await drain.run(stop, last_effort_s=last_effort_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
