"""Where a request ends is what its head says, whatever else it asks for; and what frames a body is no more than the body."""

import contextlib
import socket

import orjson
import pytest

from tests.integration.graphql_http.test_slow_clients import connect, ended, serving
from tests.support.served import read_answer, request_bytes

pytestmark = pytest.mark.integration

UPGRADES = {
    "h2c": [("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings"), ("http2-settings", "AAMAAABkAAQAAP__")],
    "websocket": [("connection", "upgrade"), ("upgrade", "websocket")],
}
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b"1c\r\n" + b"y" * 28 + b";\r\n"[1:] + b"0\r\n\r\n"


def head(path, headers, length):
    return request_bytes("POST", path, [("host", "x"), *headers, ("content-length", length)])


def quiet(connection):
    """Whether nothing more comes."""
    connection.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        return connection.recv(65536) == b""
    return True


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("path", ["/graphql", "/artifacts"])
@pytest.mark.parametrize("asked", UPGRADES)
def test_who_asks_for_another_protocol_is_answered_in_this_one_and_its_body_is_no_request(asked, path, later):
    with serving() as (port, _, _), connect(port) as connection:
        first, body = head(path, UPGRADES[asked], len(SMUGGLED)), SMUGGLED
        stream = connection.makefile("rb")
        for part in (first, body[:20], body[20:]) if later else (first + body,):
            connection.sendall(part)
            if later and part is first:
                assert quiet(connection)  # the head alone is no request yet
                connection.settimeout(20)
        answer = read_answer(stream, bodyless=False)
        assert (answer.status, answer.body) == (200, SMUGGLED)
        assert "upgrade" not in answer.headers
        assert quiet(connection)


@pytest.mark.parametrize("asked", UPGRADES)
def test_requests_behind_such_a_one_are_answered(asked):
    one = head("/graphql", UPGRADES[asked], 5) + b"hello"
    plain = request_bytes("POST", "/head", [("host", "x"), ("a", "b"), ("content-length", 2)], b"hi")
    bodyless = request_bytes("GET", "/3", [("host", "x"), *UPGRADES[asked]])
    with serving() as (port, _, _), connect(port) as connection:
        stream = connection.makefile("rb")
        connection.sendall(one + one + plain + bodyless + one)
        assert [read_answer(stream, bodyless=False).body for _ in range(5)] == [
            b"hello",
            b"hello",
            b"host a content-length",
            b"xxx",
            b"hello",
        ]
        connection.sendall(plain)
        assert read_answer(stream, bodyless=False).body == b"host a content-length"


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_chunked_body_of_who_asks_for_another_protocol_is_read_by_its_chunks(pieces):
    data = request_bytes("POST", "/graphql", [("host", "x"), *UPGRADES["h2c"], ("transfer-encoding", "chunked")], CHUNKED)
    with serving() as (port, _, _), connect(port) as connection:
        for at in range(0, len(data), len(data) // pieces + 1):
            connection.sendall(data[at : at + len(data) // pieces + 1])
        assert read_answer(connection.makefile("rb"), bodyless=False).body == b"y" * 28


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("target", ["example.org:443", "/graphql"])
def test_who_asks_for_a_tunnel_is_refused_and_nothing_behind_it_is_read(target, later):
    first = request_bytes("CONNECT", target, [("host", "x"), ("content-length", len(SMUGGLED))])
    with serving() as (port, _, _), connect(port) as connection:
        connection.sendall(first if later else first + SMUGGLED)
        stream = connection.makefile("rb")
        answer = read_answer(stream, bodyless=False)
        with contextlib.suppress(OSError):
            connection.sendall(SMUGGLED)
            assert stream.read() == b""
    if target.startswith("/"):  # no authority, so it is no HTTP
        assert answer.status in {400, 405}
    else:
        assert (answer.status, answer.headers["allow"], answer.codes) == (405, "GET, POST", ["BAD_REQUEST"])
    assert answer.headers["connection"] == "close"


def test_who_asks_for_a_tunnel_behind_a_request_is_refused_behind_its_answer():
    with serving() as (port, _, _), connect(port) as connection:
        connection.sendall(head("/", [], 5) + b"hello" + request_bytes("CONNECT", "example.org:443", [("host", "x")]) + SMUGGLED)
        stream = connection.makefile("rb")
        assert [read_answer(stream, bodyless=False).status for _ in range(2)] == [200, 405]
        assert ended(connection)


@pytest.mark.parametrize("path", ["/graphql", "/artifacts"])
def test_chunks_that_are_more_extension_than_data_are_refused_after_some_kilobytes(path):
    began = request_bytes("POST", path, [("host", "x"), ("transfer-encoding", "chunked")], b"1;a=")
    with serving() as (port, _, _), connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(began)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 * 1024 * 1024:
                sent += connection.send(b"x" * 65536)
        answer = read_answer(connection.makefile("rb"), bodyless=False)
        assert sent < 32 * 1024 * 1024
    assert (answer.status, answer.codes, answer.headers["connection"]) == (400, ["BAD_REQUEST"], "close")
    assert orjson.loads(answer.body)["errors"][0]["message"].startswith("The chunks of the body are more framing than data")


def test_a_body_in_chunks_of_one_byte_is_read():
    with serving() as (port, _, _), connect(port) as connection:
        connection.sendall(request_bytes("POST", "/", [("host", "x"), ("transfer-encoding", "chunked")]))
        for _ in range(20):
            connection.sendall(b"1\r\nx\r\n" * 10_000)
        connection.sendall(b"0\r\n\r\n")
        assert len(read_answer(connection.makefile("rb"), bodyless=False).body) == 200_000


def test_a_body_that_nobody_reads_is_not_listened_to_for_ever():
    with serving() as (port, book, _), connect(port) as connection:
        connection.sendall(request_bytes("POST", "/early", [("host", "x"), ("content-length", 2**40)], b"half"))
        assert read_answer(connection.makefile("rb"), bodyless=False).status == 200
        with contextlib.suppress(OSError):
            for _ in range(1024):
                connection.sendall(b"x" * 65536)
            pytest.fail("all of it was taken")
        assert not book.told.reasons  # and not for want of time
