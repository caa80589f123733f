"""`turnout serve`: the parent of everything on this machine."""

from __future__ import annotations

import ctypes
import os
import signal

import click

from app.cli.options import environ, load_settings
from app.supervisor.supervisor import supervise

_PR_SET_PDEATHSIG = 1


@click.command()
@click.option("--host", help="Address to listen on. Default: TURNOUT_HOST, 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on. Default: TURNOUT_PORT, 8000.")
@click.option("--workers", type=click.IntRange(1, 256), help="Serving processes. Default: TURNOUT_WORKERS, 1.")
@click.option("--demo", is_flag=True, help="Seed the demo tenants once it serves.")
@click.option("--stop-with-parent", is_flag=True, hidden=True)  # make run: kill -9 of make stops the service too
def serve(host: str | None, port: int | None, workers: int | None, demo: bool, stop_with_parent: bool) -> None:
    """Serve until Ctrl-C: database, model workers, journal and HTTP."""
    if stop_with_parent:
        _stop_with_parent()
    settings = load_settings(
        TURNOUT_HOST=host,
        TURNOUT_PORT=None if port is None else str(port),
        TURNOUT_WORKERS=None if workers is None else str(workers),
    )
    raise SystemExit(supervise(settings, environ(), demo=demo))


def _stop_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)
