"""Who is needed for opening a version and is being started anew is waited for, in one place; a reason against it is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.errors import ModelFailed, ModelUnavailable, Unavailable
from app.prediction import opening
from app.prediction.bulkheads import TenantThreads
from app.prediction.opening import RuntimeOpener
from tests.support.serving import TENANT, GraphOpener, Graphs, SumEstimator, compiled_route, sum_graph

pytestmark = pytest.mark.unit
ROUTE = compiled_route(None)


@dataclass
class Host:
    """A model host, artifacts and confinement: each opening meets the next of `errors`, and then succeeds."""

    errors: list[Exception] = field(default_factory=list)
    asked: int = 0

    async def refusal(self, digest):
        return None

    async def path(self, tenant_id, digest):
        return Path("artifact")

    async def open(self, *_):
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return SumEstimator()


async def opened(host):
    opener = RuntimeOpener(host, host, host, None, TenantThreads())
    try:
        return await opener.estimator(TENANT, ROUTE)
    finally:
        await opener.close()


async def test_a_host_that_is_started_anew_is_waited_for():
    host = Host([Unavailable("away"), Unavailable("away")])
    assert (await opened(host)).kind == "sklearn"
    assert host.asked == 3


async def test_a_host_that_stays_away_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(opening, "_AWAY_WITHIN_S", 0.0)
    host = Host([Unavailable("away")] * 100)
    with pytest.raises(Unavailable, match="away"):
        await opened(host)
    assert host.asked == 1


@pytest.mark.parametrize("error", [ModelUnavailable("This machine holds as many models as it can."), ModelFailed("broken")])
async def test_what_waiting_does_not_help_is_told_at_once(error):
    host = Host([error])
    with pytest.raises(type(error), match=error.message):
        await opened(host)
    assert host.asked == 1


async def test_a_database_that_is_away_is_waited_for_where_a_graph_is_opened(tmp_path):
    graphs = Graphs()
    route = compiled_route(graphs.add(sum_graph()))
    real, away = graphs.bytes, [Unavailable("away")]

    async def bytes_of(tenant_id, digest):
        if away:
            raise away.pop()
        return await real(tenant_id, digest)

    opener = GraphOpener(tmp_path, graphs)
    opener._flats._graphs = type("Away", (), {"bytes": staticmethod(bytes_of)})
    assert (await opener.compiled(TENANT, route, None)).kind == "onnx"
    await opener.close()
