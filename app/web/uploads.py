"""`POST /artifacts`: raw bytes of a joblib or skops file, streamed into the registry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import structlog

from app.errors import AppError, BadRequest, DeadlineExceeded, PayloadTooLarge
from app.graphql.errors import problem_of, unforeseen
from app.graphql.http.body import ClientGone
from app.graphql.http.charge import charging
from app.graphql.http.cors import CorsPolicy
from app.graphql.http.exchange import Exchange, headers_of
from app.graphql.http.negotiation import HttpRefusal
from app.kernel.context import Action
from app.registry.signing import HEADER, Stamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from app.graphql.http.admission import Places
    from app.graphql.http.cors import Headers
    from app.graphql.http.ports import Gatekeeper, Throttle
    from app.kernel.context import RequestContext
    from app.registry.artifacts import ArtifactUploads

UPLOAD_TIMEOUT_S = 600.0
SILENCE_S = 30.0  # a client that sends nothing for so long is gone
LEAST_BYTES_A_S = 16 * 1024  # of an upload that has lasted for longer than that
UPLOADS = 32  # under way in one process
_STATUS = {"BAD_USER_INPUT": 400, "FORBIDDEN": 403, "NOT_FOUND": 404, "QUOTA_EXCEEDED": 429}
log = structlog.get_logger(__name__)


class UploadEndpoint:
    """An ASGI app; answers 201 `{"digest": sha256 hex, "sizeBytes": n}`. A refusal has a GraphQL error body and a fitting status."""

    def __init__(
        self, uploads: ArtifactUploads, gatekeeper: Gatekeeper, throttle: Throttle, places: Places, cors_origins: tuple[str, ...]
    ) -> None:
        self._uploads = uploads
        self._gatekeeper = gatekeeper
        self._charge = charging(throttle)
        self._places = places
        self._cors = CorsPolicy(cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, UPLOAD_TIMEOUT_S)
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        try:
            status, body, headers = await self._answer(exchange)
        except ClientGone:
            return
        headers.extend(self._cors.headers(exchange.headers.get(b"origin")))
        await exchange.send(send, status, body, headers)
        if exchange.code != "OK":
            log.info("upload_refused", code=exchange.code, status=status)

    async def _answer(self, exchange: Exchange) -> tuple[int, bytes, Headers]:
        if exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers:
            permission = self._cors.preflight(exchange.headers.get(b"origin"))
            if permission is not None:
                return 204, b"", permission
        try:
            if exchange.method != "POST":
                raise HttpRefusal(405, "Send the file's bytes by POST.", ((b"allow", b"POST"),))
            return await self._receive(exchange)
        except AppError as error:
            forced = error.status if isinstance(error, HttpRefusal) else _STATUS.get(error.code)
            status, body = exchange.refuse([problem_of(error)], forced)
            return status, body, headers_of(error, status)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001  the last resort: whatever happens, the caller gets an answer with a request id
            return (*exchange.refuse([unforeseen(error, exchange.request_id, "upload")], 500), [])

    async def _receive(self, exchange: Exchange) -> tuple[int, bytes, Headers]:
        ctx = await self._admit(exchange)
        await self._charge(ctx, exchange).settle()
        ctx.require(Action.UPLOAD_ARTIFACT)
        _check_length(exchange, self._uploads.max_bytes(ctx))
        sent = exchange.headers.get(HEADER.lower().encode())
        stamp = None if sent is None else Stamp.parse(sent.decode("latin-1"))
        place = self._places.begin(ctx.tenant_id)
        try:
            artifact = await self._uploads.receive(ctx, _pieces(exchange), stamp)
        finally:
            place.end()
        exchange.body_read = True
        return 201, orjson.dumps({"digest": artifact.digest, "sizeBytes": artifact.size_bytes}), []

    async def _admit(self, exchange: Exchange) -> RequestContext:
        authorization = exchange.headers.get(b"authorization")
        text = None if authorization is None else authorization.decode("latin-1")
        return await self._gatekeeper.admit(text, exchange.request_id, exchange.deadline, exchange.client_address)


def _check_length(exchange: Exchange, most: int) -> None:
    """Refuses an announced size before a byte is read."""
    length = exchange.headers.get(b"content-length")
    if length is None:
        return
    if not length.isdigit():
        raise BadRequest("Content-Length must be a whole number.")
    if len(length) > 18 or int(length) > most:
        raise PayloadTooLarge(f"The artifact is larger than {most:,} bytes, the largest that your tenant may upload.")
    if int(length) == 0:
        raise BadRequest("The body is empty: send the bytes of a joblib or skops file.")


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    """The body as it comes; raises DeadlineExceeded for a client that falls silent."""
    received = 0
    while True:
        try:
            async with asyncio.timeout(min(SILENCE_S, max(0.0, exchange.deadline.remaining_s()))):
                message = await exchange.receive()
        except TimeoutError:
            raise DeadlineExceeded("The upload fell silent or took too long: send it again.") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        received += len(piece)
        if (lasts_s := exchange.elapsed_s()) > SILENCE_S and received < LEAST_BYTES_A_S * lasts_s:
            raise DeadlineExceeded(f"The upload is slower than {LEAST_BYTES_A_S // 1024} KiB a second: send it over a better connection.")
        if piece:
            yield piece
        if not message.get("more_body", False):
            break
    if received == 0:
        raise BadRequest("The body is empty: send the bytes of a joblib or skops file.")
