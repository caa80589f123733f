"""Requests of every malformed kind through a real server: each gets its status, its code and a request id, and nobody gets a secret."""

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.graphql.errors import ErrorCode
from tests.support.hostile import Case, cases_by_kind, post
from tests.support.served import exchange, request_bytes, served
from tests.support.toy_schema import SECRET, Toy

pytestmark = pytest.mark.integration

LEAKS = ("Traceback", 'File "', "site-packages", "/app/", "hunter2", SECRET, ".py", "strawberry", "graphql-core", "Did you mean")
KINDS = cases_by_kind()


@pytest.fixture(scope="module")
def port():
    with served(Toy().endpoint) as port:
        yield port


def check(case: Case, answer):
    assert answer is not None, case.name
    text = answer.body.decode()
    assert answer.ours, (case.name, answer)
    assert answer.status == case.status, (case.name, answer)
    assert answer.headers["cache-control"] == "private, no-store"
    assert not [leak for leak in LEAKS if leak in text], (case.name, text)
    if case.bodyless:
        return
    assert set(answer.codes) <= case.codes, (case.name, answer)
    assert 1 <= len(answer.errors) <= 10
    for error in answer.errors:
        assert error["extensions"]["requestId"] == answer.headers["x-request-id"]
        assert error["extensions"]["code"] in set(ErrorCode)
        assert isinstance(error["extensions"]["retryable"], bool)
        assert isinstance(error["message"], str)


def test_there_are_at_least_400_of_them():
    assert len({case.data for cases in KINDS.values() for case in cases}) >= 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_malformed_request_has_its_status_and_code(kind, port):
    for case in KINDS[kind]:
        check(case, exchange(port, case.data, bodyless=case.bodyless))


def test_the_server_still_answers_after_all_of_them(port):
    answer = exchange(port, post("good", b'{"query":"{add}"}', 200).data)
    assert (answer.status, orjson.loads(answer.body)["data"]) == (200, {"add": 3})


def test_bytes_that_are_no_http_never_reach_the_handler_nor_break_the_server(port):
    for data in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"POST /graphql HTTP/9.9\r\n\r\n",
        b"\x00" * 100,
        b"POST /graphql HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        answer = exchange(port, data + b"\r\n\r\n")
        assert answer is None or (answer.status == 400 and not answer.ours)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=10), inner, max_size=4),
    max_leaves=20,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "query": JSON_VALUES | st.text("{}()$:!@.add fragmentquery\"'\\#,0123", max_size=40),
        "variables": JSON_VALUES,
        "operationName": JSON_VALUES,
        "extensions": JSON_VALUES | st.fixed_dictionaries({"persistedQuery": JSON_VALUES}),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | MEMBERS.map(orjson.dumps))
def test_no_body_whatever_is_answered_with_a_server_error(body, port):
    answer = exchange(port, post("any", body, 400).data)
    assert answer.ours
    assert answer.status in {200, 400}
    if answer.status == 400:
        assert set(answer.codes) <= set(ErrorCode) - {ErrorCode.INTERNAL_SERVER_ERROR}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.binary(max_size=60).map(
        lambda data: "".join(chr(byte) if 33 <= byte < 127 and byte != 35 else f"%{byte:02x}" for byte in data)
    )
)
def test_no_query_string_whatever_is_answered_with_a_server_error(query, port):
    headers = [("host", "x"), ("authorization", "Bearer clinic"), ("accept", "application/graphql-response+json")]
    answer = exchange(port, request_bytes("GET", f"/graphql?query={query}", headers))
    assert answer.ours
    assert answer.status in {200, 400, 405}
