"""How many uploads of one tenant may be under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from app.errors import RateLimited
from app.kernel.clock import Deadline, SystemClock
from app.kernel.context import RequestContext, Role
from app.registry.artifacts import UPLOADS_AT_ONCE, ArtifactUploads
from app.tenancy.permissions import actions_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.unit


class Slow:
    """A client that opens an upload, waits, and breaks off."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        await self.gone.wait()
        raise ConnectionResetError
        yield b""


class Nothing:
    """Neither database nor keys: nothing gets as far as being stored. Any artifact would be small enough."""

    def max_artifact_bytes(self, _: UUID) -> int:
        return 1 << 30

    def tenant_tx(self, _: UUID) -> Any:
        raise ConnectionError


def caller(tenant: int) -> RequestContext:
    roles = frozenset({Role.PUBLISHER})
    return RequestContext(UUID(int=tenant), "t", "ci", roles, actions_of(roles), None, "req", Deadline.after(5))


async def test_a_tenant_has_so_many_uploads_under_way_and_no_more_and_another_its_own() -> None:
    nothing: Any = Nothing()
    uploads, slow = ArtifactUploads(nothing, SystemClock(), nothing, nothing, nothing, nothing), Slow()
    tasks = [asyncio.create_task(uploads.receive(caller(1), slow.pieces())) for _ in range(UPLOADS_AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await uploads.receive(caller(1), slow.pieces())
    slow.gone.set()
    with pytest.raises(ConnectionResetError):
        await uploads.receive(caller(2), slow.pieces())
    await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(ConnectionResetError):  # room again
        await uploads.receive(caller(1), slow.pieces())
