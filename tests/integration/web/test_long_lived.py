"""What a serving process was made of is not looked through again for garbage."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.service import ROOT

pytestmark = pytest.mark.integration

SERVER = """
import gc, os, signal, socket
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from app.web.connections import ConnectionLimits, Connections
from app.web.serving import Leaving, serve

class Told:
    def connection_closed(self, reason): ...

made = []

@asynccontextmanager
async def lifespan(app):
    made.extend([] for _ in range(100_000))
    gc.callbacks.append(ended)
    yield
    print(gc.get_freeze_count(), len(gc.get_objects()), gc.get_threshold()[0])

def ended(phase, info):
    if phase == "stop" and info["generation"] == 2:
        gc.callbacks.remove(ended)
        os.kill(os.getpid(), signal.SIGTERM)

listener = socket.create_server(("127.0.0.1", 0))
serve(Starlette(lifespan=lifespan), listener, Connections(ConnectionLimits(), Told()), Leaving(0.0))
"""


def test_a_process_that_began_to_serve_looks_for_garbage_seldom_and_only_at_what_is_newer() -> None:
    done = subprocess.run([sys.executable, "-c", SERVER], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    kept, looked_at, young = map(int, done.stdout.split())
    assert kept > 100_000
    assert looked_at < 20_000
    assert young == 5_000
