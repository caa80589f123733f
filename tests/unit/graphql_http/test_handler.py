import asyncio
import hashlib

import orjson
import pytest
import strawberry
from strawberry.extensions import SchemaExtension

from app.errors import ConfigurationError
from app.graphql.http.handler import GraphQLEndpoint
from app.graphql.http.options import EndpointOptions
from tests.support.asgi import call, post
from tests.support.toy_schema import SECRET, Allowance, Query, Toy, ToyThrottle

pytestmark = pytest.mark.unit
GRAPHQL = {"accept": "application/graphql-response+json"}
SHOP = {"authorization": "Bearer shop"}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def persisted(text):
    return {"persistedQuery": {"version": 1, "sha256Hash": sha(text)}}


async def test_an_answer_has_data_and_is_never_stored():
    answer = await post(Toy().endpoint, "{add}")
    assert (answer.status, answer.body) == (
        200,
        b'{"data":{"add":3},"extensions":{"cost":{"requested":5,"remaining":999995}}}',
    )
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_numpy_arrays_are_written_as_json_lists():
    answer = await post(Toy().endpoint, "{vector(size:4)}")
    assert answer.json == {"data": {"vector": [0.0, 0.5, 1.0, 1.5]}}


async def test_unicode_goes_in_and_out_unchanged():
    text = "Ærøskøbing 💥 \u202e ﷽ \ufeff"
    answer = await post(Toy().endpoint, "query($m:String!){prediction(model:$m){model}}", variables={"m": text})
    assert answer.json["data"]["prediction"]["model"] == text


async def test_a_byte_order_mark_is_ignored_in_a_document_and_refused_before_json():
    assert (await post(Toy().endpoint, "\ufeff{add}")).json == {"data": {"add": 3}}
    assert (await call(Toy().endpoint, body=b'\xef\xbb\xbf{"query":"{add}"}')).codes == ["BAD_REQUEST"]


@pytest.mark.parametrize("sent", ["8e0c9d5a-1f2b-4c3d", "trace:0af7651916cd43dd/00f0"])
async def test_a_sane_request_id_is_kept(sent):
    answer = await post(Toy().endpoint, "{nothing}", headers={"x-request-id": sent})
    assert answer.headers["x-request-id"] == sent
    assert answer.errors[0]["extensions"]["requestId"] == sent


@pytest.mark.parametrize("sent", ["short", "with a space", "x" * 81, 'quote"quote', "é" * 10, "<b>bold</b>"])
async def test_any_other_request_id_is_replaced(sent):
    answer = await post(Toy().endpoint, "{nothing}", headers={"x-request-id": sent})
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.errors[0]["extensions"]["requestId"] == answer.headers["x-request-id"]


async def test_a_browser_is_told_what_it_would_have_to_accept_and_where_that_is_described():
    answer = await call(Toy().endpoint, "GET", b"", {"accept": "text/html", "authorization": "Bearer clinic"})
    assert answer.status == 406
    assert all(word in answer.errors[0]["message"] for word in ("application/json", "docs/clients.md"))


async def test_what_comes_first_refuses_first():
    """Method, media type, caller, limit, length, JSON: each request is wrong in all later ways too."""
    toy = Toy(throttle=ToyThrottle(budget=0), options=EndpointOptions(max_body_bytes=10))
    wrong = {"accept": "text/html", "content-type": "text/plain", "authorization": None}
    seen = [(await call(toy.endpoint, "PUT", b"x" * 100, wrong)).status]
    for mended in ({"accept": "*/*"}, {"content-type": "application/json"}, {"authorization": "Bearer clinic"}):
        seen.append((await call(toy.endpoint, "POST", b"x" * 100, wrong)).status)
        wrong |= mended
    assert seen == [405, 406, 415, 401]
    assert (await call(toy.endpoint, "POST", b"x" * 100, wrong)).status == 429
    toy.throttle.budget = 100
    assert [(await call(toy.endpoint, "POST", body, wrong)).status for body in (b"x" * 100, b"x" * 5)] == [413, 400]


async def test_a_limited_request_is_refused_before_a_byte_of_its_body_is_read():
    toy = Toy(throttle=ToyThrottle(budget=0))
    answer = await call(toy.endpoint, headers={"content-length": str(2**30)}, chunks=[b"{" * 1000])
    assert (answer.status, answer.codes, answer.taken) == (429, ["RATE_LIMITED"], 0)
    assert answer.headers["retry-after"] == "2"
    assert answer.errors[0]["extensions"] | {"requestId": ""} == {
        "retryAfterMs": 1500,
        "code": "RATE_LIMITED",
        "retryable": True,
        "requestId": "",
    }
    assert answer.headers["connection"] == "close"


async def test_every_answer_after_the_limit_says_what_is_left():
    toy = Toy(throttle=ToyThrottle(budget=12))
    answers = [
        await post(toy.endpoint, "{add}"),
        await post(toy.endpoint, "{add}"),
        await call(toy.endpoint, body=b"{"),
        await post(toy.endpoint, "{a"),
    ]
    assert [answer.headers["ratelimit"] for answer in answers] == [f'"requests";r={left};t=1' for left in (7, 6, 5, 0)]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=12'}
    assert "ratelimit" not in (await post(toy.endpoint, "{add}", headers={"authorization": None})).headers


async def test_a_document_that_this_tenant_has_not_sent_before_costs_more():
    toy = Toy()
    for headers in ({}, {}, SHOP, SHOP):
        await post(toy.endpoint, "{add}", headers=headers)
    assert toy.throttle.spent == {"clinic": 6, "shop": 6}


async def test_a_document_that_cannot_be_paid_for_is_not_parsed():
    toy = Toy(throttle=ToyThrottle(budget=7))
    assert (await post(toy.endpoint, "{add}")).status == 200
    assert (await post(toy.endpoint, "{ not even a document")).codes == ["RATE_LIMITED"]
    assert (await post(toy.endpoint, "{add}")).status == 200


async def test_a_limit_smaller_than_the_price_still_lets_a_new_document_in():
    assert (await post(Toy(throttle=ToyThrottle(budget=2)).endpoint, "{add}")).status == 200
    assert (await post(Toy(throttle=ToyThrottle(budget=1)).endpoint, "{add}")).status == 200


async def test_what_never_fits_is_not_called_retryable():
    toy = Toy()
    toy.throttle.take = lambda ctx, cost: Allowance(allowed=False, limit=5, remaining=5, retry_after_ms=None)
    answer = await post(toy.endpoint, "{add}")
    assert (answer.status, answer.codes, answer.errors[0]["extensions"]["retryable"]) == (429, ["RATE_LIMITED"], False)
    assert "retryAfterMs" not in answer.errors[0]["extensions"]


async def test_why_a_token_was_refused_is_not_told():
    answer = await post(Toy().endpoint, "{add}", headers={"authorization": "Bad"})
    assert (answer.status, SECRET in answer.body.decode()) == (401, False)


async def test_who_is_at_the_door_is_told_by_the_address_that_the_server_gives():
    toy = Toy()
    answer = await post(toy.endpoint, "{add}", headers={"authorization": "Bearer hammering", "x-forwarded-for": "10.9.8.7"})
    assert (answer.status, answer.codes, answer.headers["retry-after"]) == (429, ["RATE_LIMITED"], "2")
    assert toy.gatekeeper.addresses == ["203.0.113.9"]


@pytest.mark.parametrize(("token", "status", "code", "header", "value"), [
    ("nobody?", 401, "UNAUTHENTICATED", "www-authenticate", 'Bearer error="invalid_token"'),
    ("suspended", 403, "TENANT_SUSPENDED", "retry-after", None),
    ("away", 503, "UNAVAILABLE", "retry-after", "3"),
    ("broken", 500, "INTERNAL_SERVER_ERROR", "retry-after", None),
])  # fmt: skip
@pytest.mark.parametrize("accept", [{}, GRAPHQL])
async def test_a_whole_request_refused_has_the_same_status_for_every_client(token, status, code, header, value, accept):
    answer = await post(Toy().endpoint, "{add}", headers={"authorization": f"Bearer {token}", **accept})
    assert (answer.status, answer.codes, answer.headers.get(header)) == (status, [code], value)
    assert "data" not in answer.json


@pytest.mark.parametrize(
    "document", ["{", "{nothing}", "query($v:Int!){add(one:$v)}", "query A{add} query B{add}", "{__schema{types{name}}}"]
)
async def test_wrong_graphql_is_200_for_plain_json_and_400_for_the_graphql_type(document):
    toy = Toy()
    assert [(await post(toy.endpoint, document, headers=accept)).status for accept in ({}, GRAPHQL)] == [200, 400]
    assert "data" not in (await post(toy.endpoint, document)).json


async def test_a_body_of_the_limit_is_read_and_one_byte_more_is_not():
    toy = Toy(options=EndpointOptions(max_body_bytes=100))
    body = b'{"query":"{add}"}'.ljust(100)
    assert (await call(toy.endpoint, body=body)).status == 200
    announced = await call(toy.endpoint, body=body + b" ")
    assert (announced.status, announced.codes, announced.taken) == (413, ["PAYLOAD_TOO_LARGE"], 0)


async def test_a_body_without_a_length_is_read_to_the_limit_and_one_chunk_at_most():
    toy = Toy(options=EndpointOptions(max_body_bytes=100))
    assert (await call(toy.endpoint, chunks=[b'{"query":', b'"{add}"}', b""])).json == {"data": {"add": 3}}
    answer = await call(toy.endpoint, chunks=[b" " * 30] * 100)
    assert (answer.status, answer.taken) == (413, 120)
    assert answer.headers["connection"] == "close"


async def test_a_caller_that_hangs_up_gets_no_answer_and_is_no_error():
    toy = Toy()
    assert await call(toy.endpoint, gone=True) is None
    assert toy.telemetry.requests == []


async def test_a_persisted_document_is_found_by_its_hash_once_this_tenant_sent_the_text():
    toy = Toy()
    assert (await post(toy.endpoint, extensions=persisted("{add}"))).codes == ["PERSISTED_QUERY_NOT_FOUND"]
    assert (await post(toy.endpoint, extensions=persisted("{add}"))).errors[0]["message"] == "PersistedQueryNotFound"
    assert (await post(toy.endpoint, "{add}", extensions=persisted("{add}"))).json == {"data": {"add": 3}}
    assert (await post(toy.endpoint, extensions=persisted("{add}"))).json == {"data": {"add": 3}}
    assert (await post(toy.endpoint, extensions=persisted("{add}"), headers=SHOP)).codes == ["PERSISTED_QUERY_NOT_FOUND"]
    query = f"extensions={orjson.dumps(persisted('{add}')).decode()}".encode()
    assert (await call(toy.endpoint, "GET", query=query)).json == {"data": {"add": 3}}


async def test_a_text_under_another_texts_hash_is_refused_and_not_kept():
    toy = Toy()
    poison = await post(toy.endpoint, "mutation{bump}", extensions=persisted("{add}"))
    assert (poison.status, poison.codes, toy.events) == (400, ["BAD_REQUEST"], [])
    assert (await post(toy.endpoint, extensions=persisted("{add}"))).codes == ["PERSISTED_QUERY_NOT_FOUND"]


@pytest.mark.parametrize(
    ("development", "role", "allowed"),
    [(True, "READER", True), (False, "OPERATOR", True), (False, "ADMIN", False), (False, "READER", False)],
)
async def test_introspection_is_for_operators_and_for_development(development, role, allowed):
    toy = Toy(options=EndpointOptions(development=development))
    for _ in range(2):  # unknown, then known
        answer = await post(toy.endpoint, "{__schema{queryType{name}}}", headers={"authorization": f"Bearer clinic:{role}"})
        assert answer.json.get("data") == ({"__schema": {"queryType": {"name": "Query"}}} if allowed else None)
        assert allowed or answer.codes == ["INTROSPECTION_DISABLED"]


async def test_what_an_operator_introspected_is_still_closed_to_others_of_the_tenant():
    toy = Toy()
    await post(toy.endpoint, "{__schema{queryType{name}}}", headers={"authorization": "Bearer clinic:OPERATOR"})
    assert (await post(toy.endpoint, "{__schema{queryType{name}}}")).codes == ["INTROSPECTION_DISABLED"]


async def test_the_introspection_of_usual_tools_is_within_the_limits():
    from graphql import get_introspection_query

    toy = Toy(options=EndpointOptions(development=True))
    for options in (
        {},
        {
            "specified_by_url": True,
            "schema_description": True,
            "directive_is_repeatable": True,
            "input_value_deprecation": True,
            "one_of": True,
        },
    ):
        answer = await post(toy.endpoint, get_introspection_query(**options))
        assert "errors" not in answer.json


async def test_a_get_may_only_carry_a_query():
    toy = Toy()
    assert (await call(toy.endpoint, "GET", query=b"query=%7Badd%7D&variables=")).json == {"data": {"add": 3}}
    named = b'query=query+A($one:Int!){add(one:$one)}+mutation+B{bump}&operationName=A&variables={"one":5}'
    assert (await call(toy.endpoint, "GET", query=named)).json == {"data": {"add": 7}}
    refused = await call(toy.endpoint, "GET", query=b"query=mutation{bump}")
    assert (refused.status, refused.headers["allow"], toy.events) == (405, "POST", [])


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_told_what_is_allowed(method):
    answer = await call(Toy().endpoint, method)
    assert (answer.status, answer.headers["allow"], answer.codes) == (405, "GET, POST", ["BAD_REQUEST"])


async def test_a_mutation_runs_once_and_is_counted_as_one():
    toy = Toy()
    assert (await post(toy.endpoint, "mutation{bump}")).json == {"data": {"bump": 1}}
    assert (toy.events, toy.telemetry.requests) == (["bumped"], [("mutation", "OK")])


async def test_telemetry_hears_of_each_request_with_its_kind_and_first_code():
    toy = Toy()
    for document in ("{add}", '{fail(kind:"missing")}', "{nothing}", "subscription{ticks}"):
        await post(toy.endpoint, document)
    await call(toy.endpoint, "PUT")
    assert toy.telemetry.requests == [
        ("query", "OK"), ("query", "NOT_FOUND"), ("none", "GRAPHQL_VALIDATION_FAILED"), ("subscription", "BAD_REQUEST"), ("none", "BAD_REQUEST"),
    ]  # fmt: skip


async def test_an_operation_that_outlives_its_deadline_is_cancelled_and_told_so():
    toy = Toy(options=EndpointOptions(request_timeout_s=0.01, grace_s=0.0))
    answer = await post(toy.endpoint, "{wait a:wait add}")
    assert (answer.status, answer.codes, answer.headers["retry-after"]) == (503, ["DEADLINE_EXCEEDED"], "1")
    await asyncio.sleep(0)
    assert toy.events == ["cancelled", "cancelled"]


async def test_a_body_that_does_not_arrive_in_time_is_cut():
    toy = Toy(options=EndpointOptions(request_timeout_s=0.01, grace_s=0.0))
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    from tests.support.asgi import scope_of

    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer clinic"), (b"content-length", b"100000")]
    await toy.endpoint(scope_of("POST", headers), receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert orjson.loads(sent[1]["body"])["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_the_schema_may_not_have_extensions_which_would_be_left_out_without_a_word():
    toy = Toy()
    schema = strawberry.Schema(
        strawberry.type(type("Q", (), {"__annotations__": {"a": int}, "a": 1}), name="Query"), extensions=[SchemaExtension]
    )
    with pytest.raises(ConfigurationError, match="extensions"):
        GraphQLEndpoint(
            schema, gatekeeper=toy.gatekeeper, throttle=toy.throttle, telemetry=toy.telemetry, context_factory=dict,
            registered=toy.documents, options=toy.options,
        )  # fmt: skip
    assert Query is not None


ORIGIN = "https://app.example.org"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST", "authorization": None}


async def test_without_origins_there_is_no_cors_header():
    toy = Toy()
    answers = [await post(toy.endpoint, "{add}", headers={"origin": ORIGIN}), await call(toy.endpoint, "OPTIONS", headers=PREFLIGHT)]
    assert [answer.status for answer in answers] == [200, 405]
    assert not [name for answer in answers for name in answer.headers if name.startswith("access-control") or name == "vary"]


async def test_a_named_origin_may_ask_and_read_the_headers_it_needs():
    toy = Toy(options=EndpointOptions(cors_origins=(ORIGIN,)))
    allowed = await call(toy.endpoint, "OPTIONS", headers=PREFLIGHT)
    assert (allowed.status, allowed.body, allowed.headers["access-control-allow-origin"]) == (204, b"", ORIGIN)
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert toy.gatekeeper.asked == 0
    for headers, status in (({}, 200), ({"authorization": None}, 401)):
        answer = await post(toy.endpoint, "{add}", headers={"origin": ORIGIN, **headers})
        assert (answer.status, answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (status, ORIGIN, "Origin")
        assert answer.headers["access-control-expose-headers"] == "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"


async def test_another_origin_gets_no_permission():
    toy = Toy(options=EndpointOptions(cors_origins=(ORIGIN,)))
    for origin in ("https://evil.example.org", ORIGIN + ".evil.example", "null", ""):
        assert (await call(toy.endpoint, "OPTIONS", headers={**PREFLIGHT, "origin": origin})).status == 405
        answer = await post(toy.endpoint, "{add}", headers={"origin": origin})
        assert "access-control-allow-origin" not in answer.headers
