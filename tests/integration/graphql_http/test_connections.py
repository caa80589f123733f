"""What only a real connection shows: bodies that never end, lengths that lie, callers that go away, many at once."""

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from app.graphql.http.options import EndpointOptions
from tests.support.hostile import JSON, LIKED, TOKEN, post
from tests.support.served import exchange, read_answer, request_bytes, served
from tests.support.toy_schema import Toy, ToyThrottle

pytestmark = pytest.mark.integration
HEAD = [("host", "x"), JSON, LIKED, TOKEN]


def read_to_end(connection):
    with connection.makefile("rb") as stream:
        answer = read_answer(stream, bodyless=False)
        return answer, stream.read()


def test_a_body_that_trickles_is_cut_and_the_connection_closed():
    toy = Toy(options=EndpointOptions(request_timeout_s=0.3, grace_s=0.0))
    with served(toy.endpoint) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request_bytes("POST", "/graphql", [*HEAD, ("content-length", 1_000_000)], b'{"query":'))
        answer, rest = read_to_end(connection)
    assert (answer.status, answer.codes, rest) == (408, ["BAD_REQUEST"], b"")


@pytest.mark.parametrize(("budget", "status"), [(100, 413), (0, 429)])
def test_a_gigabyte_is_refused_at_once_and_the_connection_closed(budget, status):
    toy = Toy(throttle=ToyThrottle(budget=budget))
    with served(toy.endpoint) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request_bytes("POST", "/graphql", [*HEAD, ("content-length", 2**30)]))
        answer, rest = read_to_end(connection)
    assert (answer.status, answer.headers["connection"], rest) == (status, "close", b"")


def test_who_asks_first_whether_to_send_a_body_is_not_told_to_when_it_would_be_refused():
    with served(Toy(throttle=ToyThrottle(budget=0)).endpoint) as port:
        answer = exchange(port, request_bytes("POST", "/graphql", [*HEAD, ("content-length", 100_000), ("expect", "100-continue")]))
    assert answer.status == 429


def test_a_refused_short_body_leaves_the_connection_usable():
    with served(Toy().endpoint) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        refused = request_bytes("POST", "/graphql", [("host", "x"), JSON, ("content-length", 17)], b'{"query":"{add}"}')
        with connection.makefile("rb") as stream:
            for data, status in ((refused, 401), (post("good", b'{"query":"{add}"}', 200).data, 200), (refused, 401)):
                connection.sendall(data)
                assert read_answer(stream, bodyless=False).status == status


def test_a_caller_that_hangs_up_in_the_middle_of_its_body_harms_nobody():
    toy = Toy()
    with served(toy.endpoint) as port:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(request_bytes("POST", "/graphql", [*HEAD, ("content-length", 1000)], b'{"query":'))
        assert orjson.loads(exchange(port, post("good", b'{"query":"{add}"}', 200).data).body)["data"] == {"add": 3}
    assert toy.telemetry.requests == [("query", "OK")]


def test_each_of_many_callers_at_once_gets_its_own_answer():
    with served(Toy().endpoint) as port, ThreadPoolExecutor(16) as callers:
        bodies = [b'{"query":"query($one:Int!){add(one:$one)}","variables":{"one":%d}}' % number for number in range(200)]
        answers = list(callers.map(lambda body: exchange(port, post("good", body, 200).data), bodies))
    assert [orjson.loads(answer.body)["data"] for answer in answers] == [{"add": number + 2} for number in range(200)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 200


def test_the_answer_to_a_head_request_has_no_body():
    with served(Toy().endpoint) as port:
        answer = exchange(port, request_bytes("HEAD", "/graphql", [("host", "x")]), bodyless=True)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")


LARGE = 1_000_000


@pytest.fixture
def crowded():
    """(port, toy): room for eight megabytes of large bodies, of which one tenant's stalled bodies have their half."""
    toy = Toy(options=EndpointOptions(max_body_bytes=LARGE, max_body_bytes_under_way=8 * LARGE))
    with served(toy.endpoint) as port, contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(4)]
        for connection in stalled:
            connection.sendall(request_bytes("POST", "/graphql", [*HEAD, ("content-length", LARGE)], b"{"))
        while toy.endpoint._bodies.free > 4 * LARGE:
            time.sleep(0.01)
        yield port, toy, stalled


def large_of(tenant, headers, body=b""):
    told = [("host", "x"), JSON, LIKED, ("authorization", f"Bearer {tenant}"), *headers]
    return request_bytes("POST", "/graphql", told, body)


def test_a_large_body_that_does_not_fit_beside_the_others_is_refused_before_it_comes(crowded):
    port, toy, _ = crowded
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(large_of("clinic", [("content-length", LARGE)]))
        answer, rest = read_to_end(connection)
    assert (answer.status, answer.codes, answer.headers["connection"], rest) == (503, ["UNAVAILABLE"], "close", b"")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.errors[0]["extensions"]["retryable"]
    assert toy.endpoint._bodies.free == 4 * LARGE


def test_a_large_body_in_chunks_that_does_not_fit_beside_the_others_is_refused_while_it_comes(crowded):
    port, toy, _ = crowded
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(large_of("clinic", [("transfer-encoding", "chunked")], b"fffff\r\n" + b" " * 100_000))
        answer, _ = read_to_end(connection)
    assert (answer.status, answer.codes, answer.headers["connection"]) == (503, ["UNAVAILABLE"], "close")
    assert toy.endpoint._bodies.free == 4 * LARGE


def test_small_bodies_and_another_tenant_s_large_ones_are_read_beside_them_and_all_is_free_again(crowded):
    port, toy, stalled = crowded
    query = b'{"query":"{add}"}'
    assert exchange(port, large_of("clinic", [("content-length", len(query))], query)).status == 200
    padded = query + b" " * (LARGE - len(query))
    assert exchange(port, large_of("shop", [("content-length", LARGE)], padded)).status == 200
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (LARGE, padded)
    assert exchange(port, large_of("shop", [("transfer-encoding", "chunked")], chunked)).status == 200
    stalled[0].sendall(padded[2:] + b" ")  # no quote, so no JSON: it is answered all the same
    assert read_answer(stalled[0].makefile("rb"), bodyless=False).status == 400
    for connection in stalled[1:]:  # the callers hang up in the middle
        connection.close()
    until = time.monotonic() + 60
    while toy.endpoint._bodies.free < 8 * LARGE:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert exchange(port, large_of("clinic", [("content-length", LARGE)], padded)).status == 200
