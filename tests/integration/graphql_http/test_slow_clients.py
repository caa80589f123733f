"""Slow and hostile clients on real sockets: each is ended in its time, and the others notice nothing."""

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter

import orjson
import pytest
import uvicorn

from app.web.connections import ConnectionLimits, Connections
from app.web.serving import Leaving, ServingProcess, guarded
from tests.support.served import exchange, read_answer, request_bytes

pytestmark = pytest.mark.integration
PATIENCE_S = 60
QUICK = ConnectionLimits(head_s=0.3, idle_s=0.3, send_s=0.3, head_bytes=8192)
ROOMY = ConnectionLimits()


class Told:
    def __init__(self):
        self.reasons = Counter()

    def connection_closed(self, reason):
        self.reasons[reason] += 1


class Time:
    """Stands still, however busy the machine is, but for what an answer at /slow takes, and from `go` on."""

    def __init__(self):
        self.passed = 0.0
        self._since = None

    def __call__(self):
        return self.passed + (0.0 if self._since is None else time.monotonic() - self._since)

    def go(self):
        self._since = time.monotonic()


GATE = threading.Event()


async def application(scope, receive, send):
    """Says what it was sent, or as many bytes as the path says; /early answers before it reads, /head with the headers' names,
    /gate once the gate is open."""
    if scope["type"] != "http":
        return
    size = int(scope["path"][1:]) if scope["path"][1:].isdigit() else 0
    body = b"x" * size
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    while scope["path"] == "/gate" and not GATE.is_set():  # noqa: ASYNC110  a thread elsewhere opens it
        await asyncio.sleep(0.01)
    if scope["path"] != "/early":
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
    if scope["path"] == "/head":
        body = b" ".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body)), (b"x-request-id", b"1")]})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def serving(limits=ROOMY, linger_s=0.5, clock=time.monotonic):
    """(port, book, server) of the application behind the guarded protocol."""
    told = Told()
    book = Connections(limits, told, clock)
    book.told = told

    async def timed(scope, receive, send):
        if scope.get("path") == "/slow" and isinstance(clock, Time):
            clock.passed += 1.0
        await application(scope, receive, send)

    config = uvicorn.Config(timed, log_config=None, http=guarded(book), loop="uvloop", lifespan="off", ws="none", server_header=False)
    server = ServingProcess(config, book, Leaving(0.0, linger_s))
    listening = socket.create_server(("127.0.0.1", 0))
    server.serve = lambda sockets=None: ServingProcess._serve(server, sockets)  # signals are the main thread's
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1], book, server
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listening.close()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def ended(connection):
    """Whether the other end hangs up, and not this one for want of patience."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def until(true):
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def ask(connection, path="/", body=b"hello", more=()):
    connection.sendall(request_bytes("POST", path, [("host", "x"), ("content-length", len(body)), *more], body))
    return read_answer(connection.makefile("rb"), bodyless=False)


@pytest.mark.parametrize("begin", [b"", b"G", b"POST / HTTP/1.1\r\nhost: x\r\nx: "])
def test_half_a_head_is_hung_up_on(begin):
    with serving(QUICK) as (port, book, _), connect(port) as connection:
        connection.sendall(begin)
        assert ended(connection)
        assert book.told.reasons == {"head": 1}


def test_a_head_that_trickles_is_hung_up_on():
    with serving(QUICK) as (port, book, _), connect(port) as connection:
        connection.settimeout(0.02)
        trickle = iter(b"POST / HTTP/1.1\r\nx: " + b"y" * 10_000)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not book.told.reasons:
                connection.sendall(bytes([next(trickle)]))
                with contextlib.suppress(TimeoutError):
                    assert connection.recv(1) == b""
        until(lambda: not book.open)
        assert book.told.reasons == {"head": 1}


def test_a_connection_that_asks_nothing_more_is_closed():
    clock = Time()
    with serving(QUICK, clock=clock) as (port, book, _), connect(port) as connection:
        assert ask(connection).body == b"hello"
        clock.go()
        assert ended(connection)
        assert book.told.reasons == {"idle": 1}


def test_a_second_half_a_head_is_hung_up_on():
    limits, clock = ConnectionLimits(head_s=0.3), Time()
    with serving(limits, clock=clock) as (port, book, _), connect(port) as connection:
        assert ask(connection).body == b"hello"
        connection.sendall(b"POST / HT")
        clock.go()
        assert ended(connection)
        assert book.told.reasons == {"head": 1}


def test_half_a_head_behind_a_request_is_waited_for_from_its_answer_on():
    clock = Time()
    with serving(QUICK, clock=clock) as (port, book, _), connect(port) as connection:
        one = request_bytes("POST", "/slow", [("host", "x"), ("content-length", 5)], b"hello")
        connection.sendall(one + one + one[:20])
        stream = connection.makefile("rb")
        assert [read_answer(stream, bodyless=False).body for _ in range(2)] == [b"hello"] * 2
        connection.sendall(one[20:])
        assert read_answer(stream, bodyless=False).body == b"hello"
        connection.sendall(one + one[:20])
        assert read_answer(stream, bodyless=False).body == b"hello"
        clock.go()
        assert ended(connection)
        assert book.told.reasons == {"head": 1}


def test_a_body_that_nobody_reads_must_come_in_time():
    limits, clock = ConnectionLimits(head_s=0.3), Time()
    with serving(limits, clock=clock) as (port, book, _), connect(port) as connection:
        connection.sendall(request_bytes("POST", "/early", [("host", "x"), ("content-length", 1000)], b"half"))
        assert read_answer(connection.makefile("rb"), bodyless=False).status == 200
        clock.go()
        assert ended(connection)
        assert book.told.reasons == {"head": 1}


def test_a_body_that_nobody_reads_but_that_comes_leaves_the_connection_usable():
    with serving() as (port, _, _), connect(port) as connection:
        connection.sendall(request_bytes("POST", "/early", [("host", "x"), ("content-length", 8)], b"half"))
        assert read_answer(connection.makefile("rb"), bodyless=False).status == 200
        connection.sendall(b"half")
        assert ask(connection).body == b"hello"


def test_a_long_body_has_the_time_that_its_reader_gives_it():
    clock = Time()
    with serving(QUICK, clock=clock) as (port, book, _), connect(port) as connection:
        connection.sendall(request_bytes("POST", "/", [("host", "x"), ("content-length", 8)], b"half"))
        until(lambda: book.open and not book.due)  # the head is there
        clock.go()
        end = time.monotonic() + 1.0
        while time.monotonic() < end and not book.told.reasons:
            time.sleep(0.05)
        connection.sendall(b"half")
        assert read_answer(connection.makefile("rb"), bodyless=False).body == b"halfhalf"


def test_who_does_not_take_an_answer_is_hung_up_on():
    clock = Time()
    with serving(QUICK, clock=clock) as (port, book, _), connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request_bytes("POST", "/30000000", [("host", "x"), ("content-length", 0)]))
        until(lambda: book.stuck)
        clock.go()
        until(lambda: book.told.reasons and not book.open)
        assert book.told.reasons == {"send": 1}


def test_who_asks_and_asks_and_takes_no_answer_is_hung_up_on():
    clock = Time()
    with serving(QUICK, clock=clock) as (port, book, _), connect(port) as connection:
        connection.settimeout(0.5)
        one = request_bytes("POST", "/100000", [("host", "x"), ("content-length", 0)])
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.sendall(one)
        clock.go()
        until(lambda: book.told.reasons and not book.open)
        assert book.told.reasons == {"send": 1}


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/", [("x", "y" * 200_000)], 431),
        ("/", [("authorization", "Bearer " + "y" * 1_000_000)], 401),  # a bad token like any other
        ("/", [("authorization", "Bearer " + "y" * 12_000), ("x", "y")], 401),
        ("/" + "y" * 100_000, [], 431),
        ("/", [(f"x-{number}", "y" * 100) for number in range(200)], 431),
    ],
)
def test_a_head_that_is_too_large_is_refused(target, headers, status):
    with serving(QUICK, clock=Time()) as (port, _, _):
        answer = exchange(port, request_bytes("GET", target, [("host", "x"), *headers]))
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    (error,) = orjson.loads(answer.body)["errors"]
    said = {
        431: ("The request's head is larger than 8,192 bytes.", "BAD_REQUEST"),
        401: ("A valid bearer token is needed.", "UNAUTHENTICATED"),
    }
    assert (error["message"], error["extensions"]["code"]) == said[status]
    assert error["extensions"] | {"code": ""} == {"code": "", "retryable": False, "requestId": answer.headers["x-request-id"]}
    assert answer.headers.get("www-authenticate") == (None if status == 431 else 'Bearer error="invalid_token"')


def test_a_head_in_many_pieces_may_be_as_large_as_one_in_one_piece():
    with serving(ConnectionLimits(head_bytes=8192)) as (port, _, _), connect(port) as connection:
        data = request_bytes("POST", "/", [("host", "x"), ("x", "y" * 8000), ("content-length", 5)], b"hello")
        for start in range(0, len(data), 1000):
            connection.sendall(data[start : start + 1000])
            time.sleep(0.002)
        assert read_answer(connection.makefile("rb"), bodyless=False).status == 200


def test_requests_in_one_piece_whose_bodies_are_large_have_heads_of_their_own():
    one = request_bytes("POST", "/", [("host", "x"), ("content-length", 20_000)], b"y" * 20_000)
    with serving(ConnectionLimits(head_bytes=4096)) as (port, _, _), connect(port) as connection:
        connection.sendall(one * 5)
        stream = connection.makefile("rb")
        assert [len(read_answer(stream, bodyless=False).body) for _ in range(5)] == [20_000] * 5


CHUNKED = request_bytes("POST", "/", [("host", "x"), ("transfer-encoding", "chunked")], b"")


def test_what_follows_a_chunked_body_is_no_part_of_the_head():
    with serving() as (port, _, _), connect(port) as connection:
        head = CHUNKED.replace(b" / ", b" /head ")
        connection.sendall(head + b"5\r\nhello\r\n0\r\nauthorization: Bearer x\r\nx-forwarded-for: 1.2.3.4\r\n\r\n")
        assert read_answer(connection.makefile("rb"), bodyless=False).body == b"host transfer-encoding"


@pytest.mark.parametrize("path", ["/", "/early"])
def test_what_follows_a_chunked_body_is_no_longer_than_a_head(path):
    trailers = b"a: b\r\n" * 1000
    with serving(ConnectionLimits(head_bytes=8192)) as (port, book, _), connect(port) as connection:
        connection.sendall(CHUNKED.replace(b" / ", b" %s " % path.encode()) + b"0\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(10_000):
                connection.sendall(trailers)
            pytest.fail("all of it was taken")
        until(lambda: book.open == 0)


def test_what_is_no_http_is_told_so_in_json():
    with serving() as (port, _, _):
        answer = exchange(port, b"\x16\x03\x01 hello\r\n\r\n")
    assert (answer.status, answer.codes, answer.headers["connection"]) == (400, ["BAD_REQUEST"], "close")


def test_where_there_is_no_room_the_oldest_idle_connection_goes_first():
    with serving(ConnectionLimits(most=2)) as (port, book, _), connect(port) as first, connect(port) as second:
        assert [ask(each).status for each in (first, second)] == [200, 200]
        with connect(port) as third:
            assert ask(third).status == 200
            assert ended(first)
            assert ask(second).status == 200
        assert book.told.reasons == {"full": 1}


def test_where_everybody_is_busy_the_new_connection_is_told_to_come_back():
    GATE.clear()
    with serving(ConnectionLimits(most=1)) as (port, book, _), connect(port) as busy:
        busy.sendall(request_bytes("POST", "/gate", [("host", "x"), ("content-length", 0)]))
        until(lambda: book.open and not book.due)  # its request is being answered
        try:
            with connect(port) as other:
                answer = read_answer(other.makefile("rb"), bodyless=False)
        finally:
            GATE.set()
        assert (answer.status, answer.codes) == (503, ["UNAVAILABLE"])
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert read_answer(busy.makefile("rb"), bodyless=False).status == 200


def test_hundreds_of_idle_connections_are_no_hindrance():
    with contextlib.ExitStack() as stack, serving() as (port, book, _):
        idle = [stack.enter_context(connect(port)) for _ in range(300)]
        assert {ask(each).status for each in idle} == {200}
        assert {ask(each).status for each in idle} == {200}
        assert book.open == 300
        until(lambda: len(book.idle) == 300)  # an answer is here a moment before its connection counts as idle


def test_who_leaves_ends_each_connection_with_an_answer_and_waits_for_the_silent():
    with serving(linger_s=PATIENCE_S) as (port, _, server), connect(port) as talker, connect(port) as silent:
        assert [ask(each).headers.get("connection") for each in (talker, silent)] == [None, None]
        server._replace(0, None)
        assert ask(talker).headers["connection"] == "close"
        assert ended(talker)
        assert ask(silent).headers["connection"] == "close"
        assert ended(silent)


def test_who_takes_a_long_answer_slowly_is_not_idle():
    with serving(ConnectionLimits(idle_s=0.3)) as (port, book, _), connect(port) as connection:
        connection.sendall(request_bytes("POST", "/30000000", [("host", "x"), ("content-length", 0)]))
        until(lambda: book.stuck)
        time.sleep(1.0)
        stream = connection.makefile("rb")
        assert len(read_answer(stream, bodyless=False).body) == 30_000_000
        assert ended(connection)
        assert book.told.reasons == {"idle": 1}
