"""What the command line says when the service refuses, is away, or is not ours."""

import json

import httpx
import pytest

from app.cli.client import Client, Refused

pytestmark = pytest.mark.unit


def client_that_hears(status, body, seen=None):
    def answer(request):
        if seen is not None:
            seen.append(request)
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body).encode())

    return Client("http://service", "a-token", httpx.MockTransport(answer))


def test_data_comes_back_and_the_token_goes_out():
    seen = []
    with client_that_hears(200, {"data": {"viewer": {"tenant": "clinic"}}}, seen) as client:
        assert client.query("query V($a: Int) { viewer { tenant } }", a=1) == {"viewer": {"tenant": "clinic"}}
    assert seen[0].headers["Authorization"] == "Bearer a-token"
    assert json.loads(seen[0].content) == {"query": "query V($a: Int) { viewer { tenant } }", "variables": {"a": 1}}


def test_a_refusal_names_code_columns_and_request():
    extensions = {
        "code": "INVALID_FEATURES",
        "requestId": "r-1",
        "problems": [{"name": "age", "problem": "mistyped", "expected": "INTEGER", "got": "41"}, {"name": "city", "problem": "missing"}],
    }
    body = {"data": {"predict": None}, "errors": [{"message": "2 columns are wrong.", "extensions": extensions}]}
    with client_that_hears(200, body) as client, pytest.raises(Refused) as refusal:
        client.query("{ predict }")
    assert refusal.value.code == "INVALID_FEATURES"
    assert refusal.value.message.splitlines() == [
        "2 columns are wrong. (INVALID_FEATURES)",
        '  age: mistyped (expected "INTEGER", got "41")',
        "  city: missing",
        "  request r-1",
    ]


def test_a_row_out_of_shape_and_a_column_without_a_name_are_told_as_such():
    shape = {"name": None, "problem": "SHAPE", "expected": "2 values", "got": "1 values"}
    extensions = {"code": "INVALID_FEATURES", "problems": [shape, {**shape, "row": 7}, {"name": "", "problem": "UNKNOWN"}]}
    with client_that_hears(200, {"errors": [{"message": "No.", "extensions": extensions}]}) as client, pytest.raises(Refused) as refusal:
        client.query("{ predict }")
    detail = '(expected "2 values", got "1 values")'
    assert refusal.value.message.splitlines()[1:] == [f"  the row: SHAPE {detail}", f"  row 7: SHAPE {detail}", '  "": UNKNOWN']


def test_blockers_of_a_promotion_are_listed():
    extensions = {"code": "NOT_PROMOTABLE", "blockers": [{"code": "NOT_READY", "message": "It is FAILED.", "overridable": False}]}
    with client_that_hears(200, {"errors": [{"message": "No.", "extensions": extensions}]}) as client, pytest.raises(Refused) as refusal:
        client.query("mutation { promote }")
    assert refusal.value.message == "No. (NOT_PROMOTABLE)\n  NOT_READY: It is FAILED."


def test_a_blocker_that_the_message_tells_is_told_once_and_comes_with_the_way_on():
    blockers = [{"code": "COLUMN_REQUIRED", "message": "Callers may leave out 'age'.", "overridable": True}]
    extensions = {"code": "NOT_PROMOTABLE", "blockers": blockers}
    error = {"message": "It cannot be promoted: Callers may leave out 'age'.", "extensions": extensions}
    with client_that_hears(200, {"errors": [error]}) as client, pytest.raises(Refused) as refusal:
        client.query("mutation { promote }")
    assert refusal.value.message.splitlines() == [
        "It cannot be promoted: Callers may leave out 'age'. (NOT_PROMOTABLE)",
        '  Here that is: turnout model promote MODEL VERSION --allow-breaking --reason "WHY"',
    ]


def test_a_refused_token_comes_with_the_command_that_makes_a_new_one():
    body = {"errors": [{"message": "A valid bearer token is needed.", "extensions": {"code": "UNAUTHENTICATED"}}]}
    with client_that_hears(401, body) as client, pytest.raises(Refused, match="turnout token --tenant TENANT") as refusal:
        client.query("{ viewer { tenant } }")
    assert "does the tenant exist (turnout tenant list)" in refusal.value.message


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[1]", b"\xff"])
def test_another_program_on_the_port_is_recognised(body):
    with client_that_hears(200, body) as client, pytest.raises(Refused, match="is it a Turnout service"):
        client.query("{ viewer { tenant } }")


def test_an_upload_sends_the_bytes_as_they_are(tmp_path):
    seen = []
    file = tmp_path / "model.joblib"
    file.write_bytes(b"\x80joblib" * 300_000)
    with client_that_hears(201, {"digest": "ab" * 32, "sizeBytes": file.stat().st_size}, seen) as client:
        assert client.upload(file) == "ab" * 32
    assert seen[0].url.path == "/artifacts"
    assert seen[0].headers["Content-Length"] == str(file.stat().st_size)
    assert seen[0].read() == file.read_bytes()


def test_a_refused_upload_says_why(tmp_path):
    (tmp_path / "big").write_bytes(b"x")
    body = {"errors": [{"message": "Too large.", "extensions": {"code": "PAYLOAD_TOO_LARGE"}}]}
    with client_that_hears(413, body) as client, pytest.raises(Refused, match=r"Too large\. \(PAYLOAD_TOO_LARGE\)"):
        client.upload(tmp_path / "big")
