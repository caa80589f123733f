"""From bytes to GraphQL parameters: strict JSON, bounded before it is read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from app.errors import BadRequest, InvalidInput, PayloadTooLarge
from app.graphql.errors import PersistedQueryNotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive

MAX_NESTING = 100  # of arrays and objects; what we answer and store must go through JSON again, which takes 254
MAX_LIST = 20_000  # twice the rows of the largest batch, whose own refusal says more
MAX_INNER = 100_000  # in all the lists of a list's objects: categories of columns
MAX_CONTAINERS = 100_000  # arrays and objects in one request: the largest batch has a tenth of it
MAX_OPENINGS = 400_000  # of them, and in texts: counted before parsing, whose cost grows faster than their number
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPENING = (b"[", b"{")


class ClientGone(Exception):
    """The caller hung up; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """A well-formed request. `document` names the document: the sha256 of the text where there is one, else what the client gave for it."""

    text: str | None
    document: str
    operation_name: str | None
    variables: dict[str, Any] | None
    registered: bool = False  # the client takes it for registered: no text of its own would do


async def read_body(receive: Receive, content_length: bytes | None, most: int) -> bytes:
    """The whole body; raises PayloadTooLarge after at most `most` bytes and one chunk, or at once where the length is announced."""
    if content_length is not None and (not content_length.isdigit() or len(content_length) > 18 or int(content_length) > most):
        raise _too_large(most)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def from_body(body: bytes) -> Parameters:
    """The parameters of a POST; raises BadRequest, or PersistedQueryNotSupported.

    Of a name that stands twice in one object the last value counts, as RFC 8259 lets it; nothing before us reads the body, so no two
    readers can disagree. NaN, infinities, numbers beyond a double, lone surrogates, a byte order mark and what is no UTF-8 are refused.
    """
    openings = sum(map(body.count, _OPENING))
    data = _json(body, "The body", openings)
    if not isinstance(data, dict):
        if isinstance(data, list):
            raise BadRequest("The body is a JSON array: batches of operations are not served. Send one operation, with aliases if need be.")
        raise BadRequest("The body must be a JSON object with the document in `query`.")
    _check_nesting(openings, data)
    return _parameters(data.get)


def from_query_string(query_string: bytes) -> Parameters:
    """The parameters of a GET, where `variables` and `extensions` are JSON texts; raises as from_body does."""
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise BadRequest("The query string must be percent-encoded UTF-8 with at most 20 parameters.") from None
    texts = dict(pairs)
    if len(texts) != len(pairs):
        raise BadRequest("A parameter stands twice in the query string.")
    values: dict[str, Any] = dict(texts)
    for name in ("variables", "extensions"):
        text = texts.get(name)
        if text is not None:
            encoded = text.encode()
            openings = sum(map(encoded.count, _OPENING))
            values[name] = _json(encoded, name, openings) if text else None
            _check_nesting(openings, values[name])
    return _parameters(values.get)


def _parameters(get: Callable[[str], Any]) -> Parameters:
    text = _typed(get("query"), str, "query", "a string")
    operation_name = _typed(get("operationName"), str, "operationName", "a string")
    variables = _typed(get("variables"), dict, "variables", "an object")
    extensions = _typed(get("extensions"), dict, "extensions", "an object")
    document_id = _typed(get("documentId"), str, "documentId", "a string")
    _check_lists(variables or {})
    claimed = _persisted(extensions) if extensions else None
    if document_id is not None:
        if text is not None:
            raise BadRequest("Send `query` or `documentId`, not both.")
        return Parameters(None, document_id, operation_name, variables, registered=True)
    if text is None:
        if claimed is None:
            raise BadRequest("The document is missing: send it as `query`, or the id under which it is registered as `documentId`.")
        return Parameters(None, claimed, operation_name, variables, registered=not _SHA256.fullmatch(claimed))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if claimed is not None and claimed != sha256 and _SHA256.fullmatch(claimed):
        raise BadRequest("extensions.persistedQuery.sha256Hash is not the SHA-256 of `query`.")
    return Parameters(text, sha256, operation_name, variables)


def _check_lists(variables: dict[str, Any]) -> None:
    """Raises InvalidInput for lists that no argument takes: what they hold is coerced to its type one by one, on the event loop."""
    for name, value in variables.items():
        for each in value.values() if isinstance(value, dict) else (value,):
            if isinstance(each, list) and len(each) > MAX_LIST:
                raise _too_long(name, len(each), MAX_LIST)
            if isinstance(each, list) and isinstance(value, dict):  # input objects in an input object: columns with their categories
                inner = sum(len(v) for item in each if isinstance(item, dict) for v in item.values() if isinstance(v, list))
                if inner > MAX_INNER:
                    raise _too_long(name, inner, MAX_INNER)


def _too_long(name: str, size: int, most: int) -> InvalidInput:
    return InvalidInput(f"Variable '${name[:80]}' holds lists of {size:,}; at most {most:,} are taken.")


def _persisted(extensions: dict[str, Any]) -> str | None:
    """The digest that an automatic persisted query claims, or the id under which its document is registered.

    Source: Apollo's automatic persisted queries, version 1; its clients send the ids of a manifest in the same place.
    """
    persisted = _typed(extensions.get("persistedQuery"), dict, "extensions.persistedQuery", "an object")
    if persisted is None:
        return None
    version = persisted.get("version")
    if version != 1 or isinstance(version, bool):
        raise PersistedQueryNotSupported("Only version 1 of persisted queries is served.")
    claimed = persisted.get("sha256Hash")
    if not isinstance(claimed, str) or not claimed:
        raise BadRequest("extensions.persistedQuery.sha256Hash must be 64 hexadecimal digits, or the id of a registered document.")
    return claimed.lower() if _SHA256.fullmatch(claimed.lower()) else claimed


def _typed(value: Any, kind: type, name: str, what: str) -> Any:
    if value is None or isinstance(value, kind):
        return value
    raise BadRequest(f"`{name}` must be {what} or null.")


def _json(text: bytes, what: str, openings: int) -> Any:
    """The text's value; raises BadRequest. `openings`: brackets and braces in it."""
    if openings > MAX_OPENINGS:
        raise BadRequest(f"{what} has more than {MAX_OPENINGS:,} opening brackets and braces.")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{what} is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None


def _check_nesting(openings: int, data: Any) -> None:
    """Raises BadRequest where arrays and objects nest too deeply. No recursion, and flat lists of numbers are passed over in C."""
    if openings <= MAX_NESTING:
        return
    level: list[Any] = [data]
    for _ in range(MAX_NESTING):
        inner: list[Any] = []
        for container in level:
            values = container.values() if isinstance(container, dict) else container
            if not _CONTAINERS.isdisjoint(map(type, values)):
                found = (value for value in values if type(value) in _CONTAINERS)
                inner.extend(islice(found, MAX_CONTAINERS + 1 - len(inner)))
                if len(inner) > MAX_CONTAINERS:
                    raise BadRequest(f"The request holds more than {MAX_CONTAINERS:,} arrays and objects.")
        if not inner:
            return
        level = inner
    raise BadRequest(f"The request nests arrays and objects more than {MAX_NESTING} deep.")


_CONTAINERS = frozenset({list, dict})


def _too_large(most: int) -> InvalidInput:
    return PayloadTooLarge(f"The body is larger than {most} bytes.", max_bytes=most)
