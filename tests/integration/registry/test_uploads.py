"""An upload may last longer than what allowed it: it is looked at again where its bytes would be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.errors import NotFound, TenantSuspended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.registry.conftest import Registry

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("status", "refusal"), [("SUSPENDED", TenantSuspended), ("ERASED", NotFound)])
async def test_of_a_tenant_that_is_not_served_any_more_when_the_bytes_are_there_nothing_is_kept(
    registry: Registry, status: str, refusal: type[Exception]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(2_000_000)
        registry.sql("update tenants set status = $1 where tenant_id = $2", status, registry.tenant)
        yield b"the rest"

    with pytest.raises(refusal):
        await registry.uploads.receive(registry.ctx, pieces())
    (kept,) = registry.sql("select (select count(*) from artifacts), (select count(*) from artifact_chunks), count(*) from audit_entries")
    assert tuple(kept) == (0, 0, 0)
    registry.sql("update tenants set status = 'ACTIVE' where tenant_id = $1", registry.tenant)
    assert len(await registry.upload(b"another")) == 64
