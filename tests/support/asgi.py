"""Calls an ASGI app in process and gives back what it answered."""

from dataclasses import dataclass

import orjson


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    taken: int  # bytes of the body that the app asked for

    @property
    def json(self):
        """The body, but for what it cost."""
        whole = orjson.loads(self.body)
        whole.pop("extensions", None)
        return whole

    @property
    def cost(self):
        return orjson.loads(self.body)["extensions"]["cost"]

    @property
    def errors(self):
        return self.json["errors"]

    @property
    def codes(self):
        return [error["extensions"]["code"] for error in self.errors]


def scope_of(method="POST", headers=(), query=b"", path="/graphql"):
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": query, "root_path": "", "headers": list(headers), "client": ("203.0.113.9", 5000),
        "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip


async def call(app, method="POST", body=b"", headers=None, query=b"", chunks=None, gone=False):
    """`headers`: name -> value, over JSON and tenant "clinic"; None takes one away. `chunks`: the body in pieces, without a length."""
    pieces = [body] if chunks is None else list(chunks)
    given = {"content-type": "application/json", "authorization": "Bearer clinic", "content-length": str(len(body))}
    if chunks is not None:
        given = {**given, "content-length": None, "transfer-encoding": "chunked"}
    given |= headers or {}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items() if value is not None]
    taken = 0
    sent = []

    async def receive():
        nonlocal taken
        if gone or not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    await app(scope_of(method, raw, query), receive, send)
    if not sent:
        return None
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:]), taken)


async def post(app, query=None, headers=None, **members):
    """A GraphQL request as JSON; `members` are further ones of the body."""
    data = {**({} if query is None else {"query": query}), **members}
    return await call(app, body=orjson.dumps(data), headers=headers)
