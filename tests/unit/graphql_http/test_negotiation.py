import pytest

from app.graphql.errors import ErrorCode
from app.graphql.http.negotiation import HttpRefusal, MediaType, check_request_type, response_type, status_of

pytestmark = pytest.mark.unit
JSON, GRAPHQL = MediaType.JSON, MediaType.GRAPHQL


@pytest.mark.parametrize(("accept", "chosen"), [
    ("", JSON), (" ", JSON), ("*/*", JSON), ("application/*", JSON), ("application/json", JSON), ("application/graphql-response+json", GRAPHQL),
    ("application/graphql-response+json, application/json;q=0.9", GRAPHQL),
    ("application/json, application/graphql-response+json", GRAPHQL),
    ("application/json, application/graphql-response+json;q=0.9", JSON),
    ("application/json, */*", JSON),
    ("application/graphql-response+json, */*", GRAPHQL),
    ("application/json;q=0, */*", GRAPHQL),
    ("*/*;q=0.1, application/graphql-response+json;q=0", JSON),
    ("text/html, application/json;q=0.1", JSON), ("APPLICATION/JSON", JSON), ("application/json; charset=utf-8", JSON),
    ("application/json; charset=latin-1", None), ("text/html", None), ("application/json;q=0", None), ("application/json;q=x", None), ("*", None), (",", None),
    ("multipart/mixed;deferSpec=20220824,application/graphql-response+json,application/json;q=0.9", GRAPHQL),
])  # fmt: skip
def test_the_answer_has_the_media_type_that_the_client_likes_best(accept, chosen):
    assert response_type(accept.encode()) is chosen
    assert response_type(accept.encode() + b"," + b" " * 300 + b"x/y") is (chosen if accept.strip() else None)  # too long to be remembered


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "Application/JSON",
        "application/graphql+json",
    ],
)
def test_json_in_utf_8_is_taken(kind):
    check_request_type(kind.encode())


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json; charset=utf-16",
        "application/graphql",
    ],
)
def test_no_other_body_is_taken_so_that_no_form_of_another_site_can_send_one(kind):
    with pytest.raises(HttpRefusal) as refused:
        check_request_type(kind.encode())
    assert refused.value.status == 415


def test_each_code_has_one_status_for_each_client():
    fixed = {code: status_of(code, GRAPHQL) for code in ErrorCode if status_of(code, JSON) == status_of(code, GRAPHQL)}
    assert fixed == {
        ErrorCode.BAD_REQUEST: 400, ErrorCode.UNAUTHENTICATED: 401, ErrorCode.FORBIDDEN: 403, ErrorCode.TENANT_SUSPENDED: 403, ErrorCode.PAYLOAD_TOO_LARGE: 413,
        ErrorCode.RATE_LIMITED: 429, ErrorCode.QUOTA_EXCEEDED: 429, ErrorCode.UNAVAILABLE: 503, ErrorCode.MODEL_UNAVAILABLE: 503, ErrorCode.LOG_UNAVAILABLE: 503,
        ErrorCode.DEADLINE_EXCEEDED: 503, ErrorCode.INTERNAL_SERVER_ERROR: 500,
    }  # fmt: skip
    assert {(status_of(code, JSON), status_of(code, GRAPHQL)) for code in set(ErrorCode) - set(fixed)} == {(200, 400)}
