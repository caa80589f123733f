"""Malformed requests of every kind, each with the status and the code that it must be answered with."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from urllib.parse import quote

import orjson

from tests.support.served import request_bytes

JSON = ("content-type", "application/json")
LIKED = ("accept", "application/graphql-response+json")
TOKEN = ("authorization", "Bearer clinic")
GOOD = orjson.dumps({"query": "query A($one: Int!) { add(one: $one) }", "variables": {"one": 2}, "operationName": "A"})
ODD_VALUES = [0, 1, -1, 1.5, True, False, "text", "", [], ["array"], {}, {"obj": "ect"}, [[]], "\u0000", "💥" * 20]


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    status: int
    codes: frozenset[str]
    bodyless: bool = False


def cases_by_kind() -> dict[str, list[Case]]:
    """All of them, under what is wrong with them."""
    kinds = (methods, media_types, bodies, members, documents, variables, persisted, targets, callers, lengths)
    return {make.__name__: list(make()) for make in kinds}


def post(name, body, status, *codes, headers=(JSON, LIKED, TOKEN), length=None):
    size = len(body) if length is None else length
    return Case(
        name, request_bytes("POST", "/graphql", [("host", "x"), *headers, ("content-length", size)], body), status, frozenset(codes)
    )


def get(name, target, status, *codes):
    return Case(name, request_bytes("GET", target, [("host", "x"), LIKED, TOKEN]), status, frozenset(codes))


def query(name, text, status, *codes, **members):
    return post(name, orjson.dumps({"query": text, **members}), status, *codes)


def methods() -> Iterator[Case]:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "LINK", "PURGE", "SEARCH", "HEAD"):
        for headers in ((TOKEN,), (), (JSON, TOKEN)):
            data = request_bytes(method, "/graphql", [("host", "x"), *headers, ("content-length", 0)])
            yield Case(f"{method} {len(headers)}", data, 405, frozenset({"BAD_REQUEST"}), bodyless=method == "HEAD")


def media_types() -> Iterator[Case]:
    for kind in (
        "", "text/plain", "text/html", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/graphql",
        "application/xml", "application/jsonp", "json", "*/*", "application/*", "application/json; charset=utf-16", ";;;", "=", "\xff\xfe",
        "application/json; charset=latin-1", "application / json", "application/json, text/plain", "application/octet-stream", "application/cbor",
        "x" * 5000, 'application/json;charset="utf-32"',
    ):  # fmt: skip
        yield post(f"content type {kind[:40]!r}", GOOD, 415, "BAD_REQUEST", headers=(("content-type", kind), LIKED, TOKEN))
    for encoding in ("gzip", "br", "deflate", "zstd", "gzip, identity", "x"):
        headers = (JSON, LIKED, TOKEN, ("content-encoding", encoding))
        yield post(f"content encoding {encoding}", b"\x1f\x8b\x08\x00" + GOOD, 415, "BAD_REQUEST", headers=headers)
    for accept in (
        "text/html", "application/xml", "image/*", "application/json;q=0", "*/*;q=0", "nothing", ";", ",,,", "application/json;q=2",
        "application/json;q=nan", "application/json;q=-1", "application/graphql-response+json;charset=utf-16", "\xff", "a" * 6000, "text/*, */*;q=0.0",
    ):  # fmt: skip
        yield post(f"accept {accept[:40]!r}", GOOD, 406, "BAD_REQUEST", headers=(JSON, ("accept", accept), TOKEN))


def bodies() -> Iterator[Case]:
    odd = [
        b"", b" ", b"null", b"true", b"1", b"1.5", b'"query"', b"[]", b"[{}]", b"[" + GOOD + b"]", b"{", b"}", b"{}x", b"{'query': 1}", b"{query: 1}",
        b'{"query": undefined}', b"\xef\xbb\xbf" + GOOD, GOOD + GOOD, GOOD + b"\x00", b"\x00" + GOOD, b"\xff\xfe", GOOD.decode().encode("utf-16"),
        GOOD.decode().encode("utf-32"), b"query=%7Badd%7D", b"--x\r\n\r\n", b"\x1f\x8b\x08\x00\x00", b"<xml/>", b"{add}", b"/**/" + GOOD, GOOD[:-1] + b",}",
        b'{"query": "{add}", }', b'{"query": "\\ud800"}', b'{"query": "\\udc00{add}"}', b'{"query": "\xc3\x28"}', b'{"query": "\xed\xa0\x80"}', b'{"query":"a\nb"}',
        b'{"a":' * 2000, b"[" * 5000, b"{}" * 3, b"-", b"+1", b"0x10", b"01", b"1e", b'{"query": 1e400}', b'{"query": -1e999}',
        b'{"query": "{add}", "variables": {"a": NaN}}', b'{"query": "{add}", "variables": {"a": Infinity}}', b'{"query": "{add}", "variables": {"a": -Infinity}}',
        b'{"query": "{add}", "variables": {"a": 1e400}}', b'{"query": "{add}", "variables": {"a": ' + b"9" * 5000 + b"}}",
        b'{"query": "{add}", "variables": {"a": ' + b"[" * 150 + b"]" * 150 + b"}}",
        b'{"query": "{add}", "variables": ' + b'{"a":' * 120 + b"1" + b"}" * 120 + b"}",
        b'{"query": "{add}", "variables": {"a": ' + b"[" * 3000 + b"]" * 3000 + b"}}",
        b'{"query": "{add}", "x": ' + b'[{"a":' * 60 + b"1" + b"}]" * 60 + b"}",
    ]  # fmt: skip
    for index, body in enumerate(odd):
        yield post(f"body {index} {body[:30]!r}", body, 400, "BAD_REQUEST")
    for cut in range(1, len(GOOD), 2):
        yield post(f"body cut at {cut}", GOOD[:cut], 400, "BAD_REQUEST")


def members() -> Iterator[Case]:
    allowed = {"query": str, "operationName": str, "variables": dict, "extensions": dict}
    for (member, kind), value in product(allowed.items(), ODD_VALUES):
        if not isinstance(value, kind):
            body = orjson.dumps({"query": "{add}", member: value})
            yield post(f"{member} is {str(value)[:20]!r}", body, 400, "BAD_REQUEST")
    for text in ("{}", '{"qeury": "{add}"}', '{"query": null}', '{"QUERY": "{add}"}', '{"query": "{add}", "query": 1}'):
        yield post(f"members {text}", text.encode(), 400, "BAD_REQUEST")
    for name in ("B", "", "a", "A ", "__proto__", "x" * 5000, "\u0000", "💥"):
        yield query(f"operation {name[:20]!r}", "query A { add }", 400, "OPERATION_RESOLUTION_FAILURE", operationName=name)
    yield query("which of two", "query A { add } query B { add }", 400, "OPERATION_RESOLUTION_FAILURE")
    yield query("only a fragment", "fragment F on Query { add }", 400, "GRAPHQL_VALIDATION_FAILED")


def documents() -> Iterator[Case]:
    text = (
        "query A($m: String!, $n: [Int!] = [1, 2]) @skip(if: false) { a: prediction(model: $m) { id, ... on Prediction { label } } ...F }"
    )
    for cut in range(1, len(text), 3):
        yield query(f"document cut at {cut}", text[:cut], 400, "GRAPHQL_PARSE_FAILED")
    for bad in ("", " ", "#", "\ufeff", ",,,", "{}}", "}{", "{add", "add", "{add}}", "{add(}", "{add()}", '{add(one:"}', "{add(one:$)}", "{...}", "{... on}", "query {", "{add @}",
                "{1}", "{add(one:01)}", "{add(one:1.)}", "{add(one:.5)}", '{fail(kind:"\\q")}', '{fail(kind:"\\u{110000}")}', "query query query", "\u0000{add}", "{add}\u0007",
                "💥", "<script>", "' or 1=1 --", "../../etc/passwd", "${7*7}", "{{7*7}}", '{fail(kind:"""}'):  # fmt: skip
        yield query(f"document {bad[:30]!r}", bad, 400, "GRAPHQL_PARSE_FAILED")
    for bad in ("{nothing}", "{add{x}}", "{prediction}", "{add(three:1)}", "{fail}", '{add(one:"1")}', "{add(one:2147483648)}", "{add(one:null)}", "{add(one:1,one:2)}",
                "{prediction{id id: label}}", "{...F}", "fragment F on Query{...F} {...F}", "fragment F on Query{add} {add}", "query($a:Nope){add}", "query($a:Int){add}",
                "query($a:Prediction){add(one:$a)}", "{add(one:$a)}", "{add @nope}", "{add @skip}", "{add @skip(if:1)}", "query A{add} query A{add}", "{add} {add}",
                "type Query { a: Int }", "extend type Query { a: Int }", "schema { query: Query }", "{code(code:NOPE)}", '{code(code:"NOT_FOUND")}', "query($a:Int,$a:Int){add(one:$a)}",
                "{... on Mutation{bump}}", "{add ... on Nope{x}}", "subscription{ticks ticked: ticks}", "query($a:Int!=null){add(one:$a)}", "{prediction{id(a:1)}}",
                "{vector(size:1e3)}", "mutation{add}", "{bump}", "query($a:String){add(one:$a)}", "fragment F on Int{x} {...F}", "{__typename{x}}", "{add(one:{a:1})}", "{add(one:[[1]])}"):  # fmt: skip
        yield query(f"invalid {bad[:40]}", bad, 400, "GRAPHQL_VALIDATION_FAILED")
    yield from too_complex()
    yield query("a row that is no row", '{predict(model:"m",features:3){id}}', 400, "BAD_USER_INPUT")
    yield query("introspection", "{__schema{types{name}}}", 400, "INTROSPECTION_DISABLED")
    yield query("introspection of one type", '{__type(name:"Query"){name}}', 400, "INTROSPECTION_DISABLED")
    yield query("introspection in a fragment", "{...F} fragment F on Query{__schema{types{name}}}", 400, "INTROSPECTION_DISABLED")
    yield query("subscription", "subscription{ticks}", 400, "BAD_REQUEST")
    for kind in ("secret", "core", "exit", "deep", "time", "other"):
        yield query(f"surprise {kind}", f'{{fail(kind:"{kind}")}}', 200, "INTERNAL_SERVER_ERROR")
        yield query(f"surprise below null {kind}", f'{{failMust(kind:"{kind}")}}', 200, "INTERNAL_SERVER_ERROR")


def too_complex() -> Iterator[Case]:
    doubling = "".join(f"fragment f{i} on Prediction{{...f{i + 1} ...f{i + 1}}} " for i in range(75))
    large = {
        "tokens": "{" + "add " * 1100 + "}",
        "characters": "{add}" + " " * 16_000,
        "one long name": "{" + "a" * 15_000 + "}",
        "comments": "#\n" * 300 + "{add}",
        "depth": "{prediction{" + "again{" * 10 + "id" + "}" * 12,
        "aliases": "{" + "".join(f"a{i}:add " for i in range(16)) + "}",
        "root fields": "{" + "add " * 21 + "}",
        "directives": "{add " + "@skip(if:false)" * 21 + "}",
        "fields": "{prediction{" + "id " * 200 + "}}",
        "unused fragment": "{add} fragment F on Prediction {" + "id " * 201 + "}",
        "doubling fragments": "{prediction{...f0}} " + doubling + "fragment f75 on Prediction{id}",
        "nesting": "{prediction{" + "...{" * 250 + "id" + "}" * 252,
        "values nested": "{predict(model:1,features:" + "[" * 250 + "]" * 250 + "){id}}",
    }
    for name, text in large.items():
        yield query(f"too large: {name}", text, 400, "QUERY_TOO_COMPLEX")


def variables() -> Iterator[Case]:
    wants = {"Int!": (int,), "String!": (str,), "Boolean!": (bool,), "ErrorCode!": (), "[Int!]!": (list,), "FeatureRow!": (dict, list)}
    fields = {"Int!": "add(one:$v)", "String!": "prediction(model:$v){id}", "Boolean!": "add @skip(if:$v)", "ErrorCode!": "code(code:$v)",
              "FeatureRow!": 'predict(model:"m",features:$v){id}'}  # fmt: skip
    for (kind, field), value in product(fields.items(), [*ODD_VALUES, None, 2**31, 2**63, 1e300, "NOPE"]):
        fits = (isinstance(value, wants[kind]) and not (kind == "Int!" and (isinstance(value, bool) or abs(value) >= 2**31))) or (
            kind == "Int!" and value == 1e300
        )
        if not fits and not (kind == "Int!" and isinstance(value, float) and value.is_integer()):
            yield query(f"{kind} is {str(value)[:20]!r}", f"query($v:{kind}){{{field}}}", 400, "BAD_USER_INPUT", variables={"v": value})
    for kind, field in fields.items():
        yield query(f"{kind} left out", f"query($v:{kind}){{{field}}}", 400, "BAD_USER_INPUT", variables={})
    yield query(
        "scalar explodes", 'query($v:FeatureRow!){predict(model:"m",features:$v){id}}', 400, "BAD_USER_INPUT", variables={"v": "explode"}
    )
    yield query("null at run time", "query($v:Int){add(one:$v)}", 200, "BAD_USER_INPUT", variables={"v": None})


def persisted() -> Iterator[Case]:
    def with_hash(entry, text=None):
        return orjson.dumps({**({"query": text} if text else {}), "extensions": {"persistedQuery": entry}})

    unknown = hashlib.sha256(b"never sent").hexdigest()
    yield post("unknown hash", with_hash({"version": 1, "sha256Hash": unknown}), 400, "PERSISTED_QUERY_NOT_FOUND")
    yield post("poison", with_hash({"version": 1, "sha256Hash": unknown}, "{add}"), 400, "BAD_REQUEST")
    for version in (0, 2, "1", True, None, 1.5, [], {}):
        yield post(f"version {version!r}", with_hash({"version": version, "sha256Hash": unknown}), 400, "PERSISTED_QUERY_NOT_SUPPORTED")
    for claimed in (None, "", 1, [], {}):
        yield post(f"hash {str(claimed)[:12]!r}", with_hash({"version": 1, "sha256Hash": claimed}), 400, "BAD_REQUEST")
    for claimed in ("x", unknown[:-1], unknown + "0", "g" * 64, "\u0661" * 64):  # no hash: a name that a build tool gave, perhaps
        yield post(f"name {claimed[:12]!r}", with_hash({"version": 1, "sha256Hash": claimed}), 400, "PERSISTED_QUERY_NOT_FOUND")
    for entry in (1, "x", [], True):
        yield post(f"entry {entry!r}", with_hash(entry), 400, "BAD_REQUEST")
    for document_id in ("sha256:abc", ""):
        yield post(f"documentId {document_id!r}", orjson.dumps({"documentId": document_id}), 400, "PERSISTED_QUERY_NOT_FOUND")
    for document_id in (1, [], {}):
        yield post(f"documentId {document_id!r}", orjson.dumps({"documentId": document_id}), 400, "BAD_REQUEST")


def targets() -> Iterator[Case]:
    q = quote("query($one:Int!){add(one:$one)}")
    bad = ["", "?", "?query", "?quer=1", "?query=%ff", "?query=%C3%28", "?query={add}&query={add}", "?" + "&".join(f"a{i}=1" for i in range(30)), "?variables={}",
           f"?query={q}&variables=1", f"?query={q}&variables=[]", f"?query={q}&variables=" + quote('"x"'), f"?query={q}&variables=" + quote("{"), f"?query={q}&variables=NaN",
           f"?query={q}&variables=" + quote('{"one":1e400}'), f"?query={q}&extensions=1", f"?query={q}&extensions=x", f"?query={q}&variables=" + quote('{"a":' * 101 + "1" + "}" * 101),
           "?query=%ed%a0%80", "?operationName=A", f"?query={q}&variables=true", f"?query={q}&extensions=[]"]  # fmt: skip
    for target in bad:
        codes = ("BAD_REQUEST", "GRAPHQL_PARSE_FAILED") if target == "?query" else ("BAD_REQUEST",)
        yield get(f"GET {target[:40]}", "/graphql" + target, 400, *codes)
    for text, code in (("", "GRAPHQL_PARSE_FAILED"), ("{", "GRAPHQL_PARSE_FAILED"), ("{nothing}", "GRAPHQL_VALIDATION_FAILED"), ("{add}x", "GRAPHQL_PARSE_FAILED"),
                       ("{__schema{types{name}}}", "INTROSPECTION_DISABLED"), ("subscription{ticks}", "BAD_REQUEST"), ("query($a:Int!){add(one:$a)}", "BAD_USER_INPUT")):  # fmt: skip
        yield get(f"GET document {text[:20]}", f"/graphql?query={quote(text)}", 400, code)
    yield get("GET mutation", f"/graphql?query={quote('mutation{bump}')}", 405, "BAD_REQUEST")
    yield get("GET named mutation", f"/graphql?operationName=B&query={quote('query A{add} mutation B{bump}')}", 405, "BAD_REQUEST")
    yield get("GET documentId", "/graphql?documentId=x", 400, "PERSISTED_QUERY_NOT_FOUND")


def callers() -> Iterator[Case]:
    bad = [(), (("authorization", ""),), (("authorization", "Bearer"),), (("authorization", "Bearer "),), (("authorization", "Basic Y2xpbmlj"),),
           (("authorization", "bearer"),), (("authorization", "Bearer \xff\xfe"),), (("authorization", "Bearer a b"),), (("authorization", "Bearer clinic:KING"),),
           (("authorization", "Bearer " + "x." * 3000),), (("authorization", "Bearer ' or 1=1"),), (("authorization", "Bearer null,"),), (("authorization", "Digest x"),),
           (("cookie", "token=clinic"),), (("x-tenant", "clinic"),)]  # fmt: skip
    for index, headers in enumerate(bad):
        yield post(f"caller {index}", GOOD, 401, "UNAUTHENTICATED", headers=(JSON, LIKED, *headers))
        yield Case(
            f"GET caller {index}",
            request_bytes("GET", "/graphql?query=%7Badd%7D", [("host", "x"), *headers]),
            401,
            frozenset({"UNAUTHENTICATED"}),
        )
    yield post("two tokens", GOOD, 400, "BAD_REQUEST", headers=(JSON, LIKED, TOKEN, ("authorization", "Bearer shop")))
    yield post("two content types", GOOD, 400, "BAD_REQUEST", headers=(JSON, LIKED, TOKEN, ("content-type", "application/json")))
    yield post("suspended", GOOD, 403, "TENANT_SUSPENDED", headers=(JSON, LIKED, ("authorization", "Bearer suspended")))
    for odd in (
        "",
        "x",
        "a b c d e f",
        "é" * 10,
        "x" * 200,
        "<script>alert(1)</script>",
        "'; drop table x; --",
        "%0d%0aset-cookie: a=b",
    ):
        yield post(f"request id {odd[:12]!r}", b"{", 400, "BAD_REQUEST", headers=(JSON, LIKED, TOKEN, ("x-request-id", odd)))


def lengths() -> Iterator[Case]:
    for length in (8 * 2**20 + 1, 2**30, 2**40, 10**18):
        yield post(f"length {length}", b"", 413, "PAYLOAD_TOO_LARGE", length=length)
    big = b" " * (8 * 2**20 + 1)
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (big[at : at + 2**20] for at in range(0, len(big), 2**20)))
    headers = [("host", "x"), JSON, LIKED, TOKEN, ("transfer-encoding", "chunked")]
    yield Case(
        "chunked beyond the limit",
        request_bytes("POST", "/graphql", headers, chunked + b"0\r\n\r\n"),
        413,
        frozenset({"PAYLOAD_TOO_LARGE"}),
    )
    yield Case("chunked and empty", request_bytes("POST", "/graphql", headers, b"0\r\n\r\n"), 400, frozenset({"BAD_REQUEST"}))
    yield Case("no body and no length", request_bytes("POST", "/graphql", headers[:-1]), 400, frozenset({"BAD_REQUEST"}))
