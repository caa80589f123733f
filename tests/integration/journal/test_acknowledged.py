"""What was acknowledged is there, and a COMMIT whose answer was lost is answered honestly: UNAVAILABLE, and a retry that does no harm."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from app.errors import Conflict, Unavailable
from app.experiments.outcome_rules import OutcomeToRecord
from app.registry.signing import TrustedKeys
from tests.integration.experiments.world import open_world
from tests.integration.registry.conftest import Registry
from tests.support.database import execute
from tests.support.proxy import Cut, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.integration.experiments.world import World
    from tests.support.database import DatabaseUrls

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(database_urls: DatabaseUrls) -> Iterator[Proxy]:
    with Proxy.of_database(database_urls.runtime) as proxy:
        yield proxy


@pytest.fixture
def by_proxy(database_urls: DatabaseUrls, proxy: Proxy) -> DatabaseUrls:
    return replace(database_urls, runtime=proxy.url(database_urls.runtime))


@pytest.fixture
async def world(by_proxy: DatabaseUrls) -> AsyncIterator[World]:
    opened = await open_world(by_proxy)
    opened.metrics()
    opened.experiment()
    yield opened
    await opened.close()


@pytest.fixture
async def registry(by_proxy: DatabaseUrls, tmp_path: Path) -> AsyncIterator[Registry]:
    made = Registry(by_proxy, tmp_path / "artifacts", TrustedKeys({}, required=False))
    yield made
    await made.close()


@pytest.mark.parametrize(("cut", "kept"), [(Cut.BEFORE, 0), (Cut.AFTER, 1)])
@pytest.mark.parametrize("key", ["order-7", None])
async def test_an_outcome_is_acknowledged_only_when_it_is_committed_and_a_retry_counts_once(
    world: World, proxy: Proxy, cut: Cut, kept: int, key: str | None
) -> None:
    record = world.prediction("ann", "blue")
    await world.log(record)
    outcome = OutcomeToRecord("spent", 5.0, prediction_id=str(record.id), idempotency_key=key)
    proxy.cut_at("commit", cut)
    with pytest.raises(Unavailable) as refused:
        await world.outcomes.record(world.caller(), outcome)
    assert (proxy.cuts, refused.value.retryable, refused.value.details["retry_after_ms"] > 0) == (1, True, True)
    assert world.ask("select count(*) from outcomes") == [(kept,)]
    again = await world.outcomes.record(world.caller(), outcome)
    await world.folder.fold(world.tenant_id)

    assert (again.value, again.duplicate) == (5.0, bool(kept))
    assert world.ask("select count(*) from outcomes") == [(1,)]
    assert world.ask("select sum(total)::float from metric_sums where metric = 'spent'") == [(5.0,)]


@pytest.mark.parametrize(("cut", "moved"), [(Cut.BEFORE, False), (Cut.AFTER, True)])
async def test_a_promotion_is_acknowledged_only_when_it_is_committed_and_a_retry_that_expects_a_revision_never_moves_twice(
    registry: Registry, proxy: Proxy, database_urls: DatabaseUrls, cut: Cut, *, moved: bool
) -> None:
    first, second = await registry.ready(b"a"), await registry.ready(b"b")
    before = await registry.service.promote(registry.ctx, "risk", first)
    proxy.cut_at("commit", cut, having="into promotions")
    with pytest.raises(Unavailable) as refused:
        await registry.service.promote(registry.ctx, "risk", second, expected_revision=before.revision)
    assert (proxy.cuts, refused.value.retryable) == (1, True)
    assert serves(database_urls, registry) == ((second, before.revision + 1) if moved else (first, before.revision))
    try:
        await registry.service.promote(registry.ctx, "risk", second, expected_revision=before.revision)
        told = "promoted"
    except Conflict:
        told = "conflict"

    assert told == ("conflict" if moved else "promoted")
    assert serves(database_urls, registry) == (second, before.revision + 1)
    assert count(database_urls, registry, "promotions") == 2
    assert count(database_urls, registry, "audit_entries where action = 'promote'") == 2


def serves(urls: DatabaseUrls, registry: Registry) -> tuple[int, int]:
    """The version that production serves, and the alias's revision."""
    (row,) = execute(urls.runtime, "select number, revision from aliases", tenant_id=registry.tenant)
    return row["number"], row["revision"]


def count(urls: DatabaseUrls, registry: Registry, of: str) -> int:
    return execute(urls.runtime, f"select count(*) from {of}", tenant_id=registry.tenant)[0][0]
