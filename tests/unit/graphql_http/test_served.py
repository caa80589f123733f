"""What counts for a tenant's service level: predictions that were answered, and those that failed by our doing."""

from __future__ import annotations

from typing import Any

import pytest

from app.graphql.http.handler import GraphQLEndpoint
from tests.support.asgi import post
from tests.support.toy_schema import Toy

pytestmark = pytest.mark.unit


class Context(dict[str, Any]):
    def __init__(self, request: Any, predicts: bool) -> None:
        super().__init__(request=request, events=[])
        self.request, self.predicts = request, predicts


class Served:
    def __init__(self) -> None:
        self.counted: list[tuple[Any, float, bool]] = []

    def count(self, tenant_id: Any, seconds: float, *, failed: bool) -> None:
        self.counted.append((tenant_id, seconds, failed))


def endpoint(served: Served, *, predicts: bool = True, **changes: Any) -> GraphQLEndpoint:
    toy = Toy(**changes)
    return GraphQLEndpoint(
        toy.schema, gatekeeper=toy.gatekeeper, throttle=toy.throttle, telemetry=toy.telemetry, registered=toy.documents,
        options=toy.options, context_factory=lambda ctx: Context(ctx, predicts), served=served,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("document", "failed"),
    [
        ("{add}", [False]),
        ('{fail(kind:"late")}', [True]),
        ('{fail(kind:"secret")}', [True]),
        ('{a:fail(kind:"missing") b:fail(kind:"late")}', [True]),  # also where the caller's error comes first
        ('{fail(kind:"missing")}', []),
        ('{fail(kind:"features")}', []),
        ('{add a:fail(kind:"missing")}', []),
        ("{nothing}", []),
        ("{", []),
    ],
)
async def test_answers_and_errors_of_ours_count_and_the_callers_own_errors_do_not(document: str, failed: list[bool]) -> None:
    served = Served()
    await post(endpoint(served), document)
    assert [each for _, _, each in served.counted] == failed
    assert all(seconds > 0 for _, seconds, _ in served.counted)


async def test_what_asks_for_no_prediction_does_not_count() -> None:
    served = Served()
    await post(endpoint(served, predicts=False), "{add}")
    await post(endpoint(served, predicts=False), '{fail(kind:"late")}')
    assert served.counted == []


async def test_each_request_counts_for_its_own_tenant() -> None:
    served = Served()
    app = endpoint(served)
    for tenant in ("clinic", "shop"):
        await post(app, "{add}", headers={"authorization": f"Bearer {tenant}"})
    assert len({tenant_id for tenant_id, _, _ in served.counted}) == 2
