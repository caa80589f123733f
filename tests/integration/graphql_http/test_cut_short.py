"""A serving process that is told to stop while requests are under way that take longer than it has: each is told to come back."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from tests.support.served import read_answer, request_bytes

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]

SERVICE = """
import socket, sys
from starlette.applications import Starlette
from starlette.routing import Route
from app.observability import logs
from app.web.connections import ConnectionLimits, Connections
from app.web.serving import Leaving, serve
from tests.support.toy_schema import Toy

class Told:
    def connection_closed(self, reason): pass

async def upload(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass

class Upload:
    async def __call__(self, scope, receive, send):
        await upload(scope, receive, send)

logs.configure("info", "serve-0")
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
app = Starlette(routes=[Route("/graphql", Toy().endpoint), Route("/artifacts", Upload())])
serve(app, listener, Connections(ConnectionLimits(), Told()), Leaving(0.0))
"""
HEAD = [("host", "x"), ("authorization", "Bearer clinic"), ("content-type", "application/json"), ("x-request-id", "asked-for-1")]
WAIT = b'{"query":"{wait}"}'
UNDER_WAY = {
    "a slow resolver": request_bytes("POST", "/graphql", [*HEAD, ("content-length", len(WAIT))], WAIT),
    "a body that comes": request_bytes("POST", "/graphql", [*HEAD, ("content-length", 500)], b"{"),
    "a large body that comes": request_bytes("POST", "/graphql", [*HEAD, ("content-length", 1_000_000)], b"{" + b" " * 300_000),
    "an upload that comes": request_bytes("POST", "/artifacts", [*HEAD, ("content-length", 50_000_000)], b"x" * 200_000),
    "an upload in chunks": request_bytes("POST", "/artifacts", [*HEAD, ("transfer-encoding", "chunked")], b"5\r\nhello\r\n"),
}


@pytest.fixture
def service():
    process = subprocess.Popen([sys.executable, "-c", SERVICE], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def all_are_taken(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as last:
        last.sendall(request_bytes("GET", "/nothing", [("host", "x")]))
        assert read_answer(last.makefile("rb"), bodyless=False).status == 404


def test_what_is_under_way_when_the_time_is_over_is_told_to_come_back_and_no_error_is_logged(service):
    process, port = service
    clients = {}
    for name, data in UNDER_WAY.items():
        clients[name] = socket.create_connection(("127.0.0.1", port), timeout=30)
        clients[name].sendall(data)
    with socket.create_connection(("127.0.0.1", port), timeout=30):  # says nothing, and is not counted
        all_are_taken(port)
        process.send_signal(signal.SIGTERM)
        for name, client in clients.items():
            with client, client.makefile("rb") as stream:
                answer = read_answer(stream, bodyless=False)
                assert (name, answer.status, answer.codes) == (name, 503, ["UNAVAILABLE"])
                (error,) = orjson.loads(answer.body)["errors"]
                assert error["extensions"] == {"code": "UNAVAILABLE", "retryable": True, "requestId": "asked-for-1"}
                assert error["message"].startswith("The service is stopping")
                assert (answer.headers["connection"], answer.headers["x-request-id"]) == ("close", "asked-for-1")
                assert answer.headers["content-type"] == "application/json; charset=utf-8"
                assert 1 <= int(answer.headers["retry-after"]) <= 5
                assert stream.read() == b""
    assert process.wait(60) == 0
    lines = [orjson.loads(line) for line in process.stderr.read().splitlines()]
    assert [(line["level"], line["event"], line.get("requests")) for line in lines] == [("warning", "requests_cut_short", len(UNDER_WAY))]


def test_what_ends_in_time_is_answered_and_nothing_is_cut_short(service):
    process, port = service
    body = b'{"query":"{add}"}'
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request_bytes("POST", "/graphql", [*HEAD, ("content-length", len(body))], body[:5]))
        all_are_taken(port)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # so that it is stopping: nobody outside could see when
        client.sendall(body[5:])
        answer = read_answer(client.makefile("rb"), bodyless=False)
    assert (answer.status, orjson.loads(answer.body)["data"], answer.headers["connection"]) == (200, {"add": 3}, "close")
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
