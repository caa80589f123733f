"""From bytes to GraphQL parameters: strict JSON, bounded before it is read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from app.errors import BadRequest, InvalidInput, PayloadTooLarge
from app.graphql.errors import PersistedQueryNotSupported
from app.graphql.http.strict_json import MAX_LIST, check_lists, read_object, read_value

if TYPE_CHECKING:
    from starlette.types import Receive

    from app.graphql.http.body_bytes import Held
    from app.graphql.http.bulk import Bulk

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_LONG_LISTS = 2 * MAX_LIST  # bytes: in a body of so many each of a list's values has two, with what parts it from the next
_REMEMBERED_CHARS = 4096  # digests of longer documents are taken each time, so that nobody fills memory with them


class ClientGone(Exception):
    """The caller hung up; nobody waits for an answer."""


@dataclass(slots=True)  # made on every request: frozen, it would cost five times as much
class Parameters:
    """A well-formed request. `document` names the document: the sha256 of the text where there is one, else what the client gave for it."""

    text: str | None
    document: str
    operation_name: str | None
    variables: dict[str, Any] | None
    registered: bool = False  # the client takes it for registered: no text of its own would do
    bulk: Bulk | None = None  # what it was made of, where there are ManyRows among the variables


async def read_body(receive: Receive, content_length: bytes | None, most: int, held: Held | None = None) -> bytes:
    """The whole body; raises PayloadTooLarge after at most `most` bytes and one chunk, or at once where the length is announced.

    `held` is told how long it is, as soon as that is known; raises what that raises.
    """
    if content_length is not None and (not content_length.isdigit() or len(content_length) > 18 or int(content_length) > most):
        raise _too_large(most)
    if held is not None and content_length is not None:
        held.need(int(content_length))
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
        if held is not None:
            held.need(size)
        if message.get("more_body", False):
            chunks.append(chunk)
        else:
            return b"".join((*chunks, chunk)) if chunks else chunk


def from_body(body: bytes) -> Parameters:
    """The parameters of a POST; raises BadRequest, or PersistedQueryNotSupported."""
    return _parameters(read_object(body), may_be_long=len(body) > _NO_LONG_LISTS)


def from_object(data: dict[str, Any]) -> Parameters:
    """The parameters of a POST whose JSON is read; raises as from_body."""
    return _parameters(data)


def from_bulk(bulk: Bulk) -> Parameters:
    """The parameters of a POST that another process has read; raises as from_body."""
    return replace(_parameters(bulk.data), bulk=bulk)


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
            values[name] = read_value(text, name)
    return _parameters(values)


def _parameters(data: dict[str, Any], *, may_be_long: bool = True) -> Parameters:
    """`may_be_long`: whether a list among the variables may be longer than is taken."""
    text, operation_name = data.get("query"), data.get("operationName")
    variables, extensions = data.get("variables"), data.get("extensions")
    document_id = data.get("documentId")
    if text is not None and not isinstance(text, str):
        raise _wrong("query", "a string")
    if operation_name is not None and not isinstance(operation_name, str):
        raise _wrong("operationName", "a string")
    if variables is not None and not isinstance(variables, dict):
        raise _wrong("variables", "an object")
    if extensions is not None and not isinstance(extensions, dict):
        raise _wrong("extensions", "an object")
    if document_id is not None and not isinstance(document_id, str):
        raise _wrong("documentId", "a string")
    if variables and may_be_long:
        check_lists(variables)
    claimed = _persisted(extensions) if extensions else None
    if document_id is not None:
        if text is not None:
            raise BadRequest("Send `query` or `documentId`, not both.")
        return Parameters(None, document_id, operation_name, variables, registered=True)
    if text is None:
        if claimed is None:
            raise BadRequest("The document is missing: send it as `query`, or the id under which it is registered as `documentId`.")
        return Parameters(None, claimed, operation_name, variables, registered=not _SHA256.fullmatch(claimed))
    sha256 = _sha256(text) if len(text) <= _REMEMBERED_CHARS else _sha256.__wrapped__(text)
    if claimed is not None and claimed != sha256 and _SHA256.fullmatch(claimed):
        raise BadRequest("extensions.persistedQuery.sha256Hash is not the SHA-256 of `query`.")
    return Parameters(text, sha256, operation_name, variables)


@lru_cache(256)
def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _persisted(extensions: dict[str, Any]) -> str | None:
    """The digest that an automatic persisted query claims, or the id under which its document is registered.

    Source: Apollo's automatic persisted queries, version 1; its clients send the ids of a manifest in the same place.
    """
    persisted = extensions.get("persistedQuery")
    if persisted is None:
        return None
    if not isinstance(persisted, dict):
        raise _wrong("extensions.persistedQuery", "an object")
    version = persisted.get("version")
    if version != 1 or isinstance(version, bool):
        raise PersistedQueryNotSupported("Only version 1 of persisted queries is served.")
    claimed = persisted.get("sha256Hash")
    if not isinstance(claimed, str) or not claimed:
        raise BadRequest("extensions.persistedQuery.sha256Hash must be 64 hexadecimal digits, or the id of a registered document.")
    return claimed.lower() if _SHA256.fullmatch(claimed.lower()) else claimed


def _wrong(name: str, what: str) -> BadRequest:
    return BadRequest(f"`{name}` must be {what} or null.")


def _too_large(most: int) -> InvalidInput:
    return PayloadTooLarge(f"The body is larger than {most} bytes.", max_bytes=most)
