from __future__ import annotations

from itertools import combinations

import pytest

from app.kernel.context import Action, Role
from app.tenancy.permissions import PERMISSIONS, actions_of, roles_for

pytestmark = pytest.mark.unit

MAY = {
    Role.PREDICTOR: {Action.VIEW_SELF, Action.PREDICT, Action.RECORD_OUTCOME},
    Role.READER: {
        Action.VIEW_SELF,
        Action.READ_USAGE,
        Action.READ_REGISTRY,
        Action.HASH_UNIT,
        Action.READ_EXPERIMENTS,
        Action.READ_DOCUMENTS,
    },
    Role.PUBLISHER: {
        Action.VIEW_SELF,
        Action.CHOOSE_VERSION,
        Action.READ_REGISTRY,
        Action.UPLOAD_ARTIFACT,
        Action.REGISTER_VERSION,
    },
    Role.EXPERIMENTER: {
        Action.VIEW_SELF,
        Action.PREDICT,
        Action.CHOOSE_VERSION,
        Action.READ_REGISTRY,
        Action.HASH_UNIT,
        Action.READ_EXPERIMENTS,
        Action.MANAGE_EXPERIMENTS,
        Action.READ_USAGE,
        Action.RECORD_OUTCOME,
        Action.READ_DOCUMENTS,
    },
    Role.ADMIN: set(Action) - {Action.MANAGE_TENANTS, Action.MANAGE_PLATFORM_DOCUMENTS},
    Role.OPERATOR: {Action.VIEW_SELF, Action.REVOKE_TOKENS, Action.MANAGE_TENANTS, Action.MANAGE_PLATFORM_DOCUMENTS},
}


@pytest.mark.parametrize("role", Role)
def test_each_role_may_do_what_the_contract_says_and_no_more(role: Role) -> None:
    assert actions_of(frozenset({role})) == MAY[role]


def test_every_action_is_in_the_table_and_some_role_gives_it() -> None:
    assert set(PERMISSIONS) == set(Action)
    assert all(PERMISSIONS.values())


def test_several_roles_give_the_sum_of_each() -> None:
    for count in range(len(Role) + 1):
        for roles in combinations(Role, count):
            assert actions_of(frozenset(roles)) == set().union(*(MAY[role] for role in roles))


def test_the_table_is_shown_in_the_order_of_roles() -> None:
    assert roles_for(Action.CHOOSE_VERSION) == (Role.PUBLISHER, Role.EXPERIMENTER, Role.ADMIN)
