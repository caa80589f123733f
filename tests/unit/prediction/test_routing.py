"""A graph that was found to be wrong answers nobody again, however its route comes."""

from __future__ import annotations

from uuid import UUID

import pytest

from app.kernel.signature import Task
from app.prediction.routing import RoutedVersion, RoutingTable, TenantRoutes, aliased_version
from app.registry.types import PRODUCTION, ModelRoute, RuntimeKind
from tests.support.serving import TENANT, compiled_route

pytestmark = pytest.mark.unit
OTHER = UUID(int=8)


def routes_of(route, alias=1):
    model = ModelRoute(route.model_id, "sum", Task.REGRESSION, {PRODUCTION: alias}, {route.number: route})
    return TenantRoutes.of([model], {(route.model_id, route.number): RoutedVersion(route)})


def served(table, tenant_id=TENANT):
    routes = table.tenant(tenant_id)
    return aliased_version(routes, routes.models["sum"], None)


def test_a_distrusted_graph_gives_way_to_its_estimator_at_once_and_others_are_untouched():
    table, wrong, right = RoutingTable(), compiled_route("d"), compiled_route("e", model_id=UUID(int=2))
    table.apply(TENANT, routes_of(wrong))
    table.apply(OTHER, routes_of(right))
    before, checker = table.tenant(OTHER), served(table).checker
    assert table.distrust(TENANT, [(wrong.model_id, 1)]) is True
    assert (served(table).route.runtime, served(table).route.is_compiled, served(table).checker) == (RuntimeKind.SKLEARN, False, checker)
    assert table.tenant(TENANT).models["sum"].versions[1].is_compiled is False
    assert [route.is_compiled for tenant, _, route in table.versions() if tenant == TENANT] == [False]
    assert table.tenant(OTHER) is before
    assert table.distrust(TENANT, [(wrong.model_id, 1)]) is False


def test_routes_that_still_name_a_distrusted_graph_are_applied_without_it():
    """An older picture may be under way, and an alias may be kept where it was."""
    table, wrong = RoutingTable(), compiled_route("d")
    assert table.distrust(TENANT, [(wrong.model_id, 1)]) is False
    table.apply(TENANT, routes_of(wrong))
    assert served(table).route.is_compiled is False


def test_a_pinned_version_leaves_its_distrusted_graph_too():
    table, aliased, pinned = RoutingTable(), compiled_route("d"), RoutedVersion(compiled_route("e", 2))
    table.apply(TENANT, routes_of(aliased))
    table.tenant(TENANT).pinned[(pinned.route.model_id, 2)] = pinned
    assert table.trusted(pinned) is pinned
    assert table.distrust(TENANT, [(pinned.route.model_id, 2)]) is True
    assert table.tenant(TENANT).pinned[(pinned.route.model_id, 2)].route.is_compiled is False
    assert table.trusted(pinned).route.is_compiled is False
    assert served(table).route.is_compiled is True
