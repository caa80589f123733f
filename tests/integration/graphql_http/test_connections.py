"""What only a real connection shows: bodies that never end, lengths that lie, callers that go away, many at once."""

import socket
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
    with served(toy.endpoint) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request_bytes("POST", "/graphql", [*HEAD, ("content-length", 1_000_000)], b'{"query":'))
        answer, rest = read_to_end(connection)
    assert (answer.status, answer.codes, rest) == (408, ["BAD_REQUEST"], b"")


@pytest.mark.parametrize(("budget", "status"), [(100, 413), (0, 429)])
def test_a_gigabyte_is_refused_at_once_and_the_connection_closed(budget, status):
    toy = Toy(throttle=ToyThrottle(budget=budget))
    with served(toy.endpoint) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request_bytes("POST", "/graphql", [*HEAD, ("content-length", 2**30)]))
        answer, rest = read_to_end(connection)
    assert (answer.status, answer.headers["connection"], rest) == (status, "close", b"")


def test_who_asks_first_whether_to_send_a_body_is_not_told_to_when_it_would_be_refused():
    with served(Toy(throttle=ToyThrottle(budget=0)).endpoint) as port:
        answer = exchange(port, request_bytes("POST", "/graphql", [*HEAD, ("content-length", 100_000), ("expect", "100-continue")]))
    assert answer.status == 429


def test_a_refused_short_body_leaves_the_connection_usable():
    with served(Toy().endpoint) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        refused = request_bytes("POST", "/graphql", [("host", "x"), JSON, ("content-length", 17)], b'{"query":"{add}"}')
        with connection.makefile("rb") as stream:
            for data, status in ((refused, 401), (post("good", b'{"query":"{add}"}', 200).data, 200), (refused, 401)):
                connection.sendall(data)
                assert read_answer(stream, bodyless=False).status == status


def test_a_caller_that_hangs_up_in_the_middle_of_its_body_harms_nobody():
    toy = Toy()
    with served(toy.endpoint) as port:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
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
