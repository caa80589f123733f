"""`python -m tools.unleash`: a real Unleash server with a database of its own, until Ctrl-C."""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
import time
from pathlib import Path

from app.db.embedded.server import EmbeddedPostgres
from app.db.privileges import DatabaseRole
from tools.unleash.server import Credentials, UnleashServer

HOME = Path(".unleash")
_SMALL = {"shared_buffers": "32MB", "max_connections": "40"}
_PR_SET_PDEATHSIG = 1
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """0 after Ctrl-C; 1 where the server does not start, or ended by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4242)
    parser.add_argument("--home", type=Path, default=HOME, help="where its database, its tokens and its log lie")
    given = parser.parse_args()
    home: Path = given.home.absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in _STOPS:
        signal.signal(number, _stop)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # make is killed: this ends, too
    database = EmbeddedPostgres(home, _SMALL)
    try:
        print("Starting Unleash (the first time, its npm packages are installed) ...", flush=True)
        database.start()
        server = UnleashServer(database.url(DatabaseRole.OWNER), given.port, Credentials.kept(home / "credentials.json"), home)
        return _serve(server)
    except KeyboardInterrupt:
        return 0
    finally:
        database.stop()


def _serve(server: UnleashServer) -> int:
    try:
        server.start()
        print(_welcome(server), flush=True)
        while server.running:
            time.sleep(0.5)
        print("The Unleash server ended by itself; its log is in the folder of its home.", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        server.stop()


def _welcome(server: UnleashServer) -> str:
    known = server.credentials
    return f"""
Unleash is at {server.url} (user admin, password {known.password}). Ctrl-C stops it; flags are kept for the next start.

  export UNLEASH={server.url}
  export UNLEASH_ADMIN_TOKEN='{known.admin}'
  export UNLEASH_FRONTEND_TOKEN='{known.frontend}'

Turnout with these flags, in another terminal:

  export TURNOUT_UNLEASH_URL={server.url}/api
  export TURNOUT_UNLEASH_TOKEN='{known.backend}'
  make run
"""


def _stop(_number: int, _frame: object) -> None:
    """Once: a terminal, make and a time limit may each say it, and stopping in order must not be cut off; it is bounded."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
