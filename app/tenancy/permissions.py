"""Which role may do what: one table, read by the services, shown on each field of the schema and in the documents.

PUBLISHER may read the registry: a CI job polls the version that it registered until it is READY or FAILED.
CHOOSE_VERSION comes on top of PREDICT: a token that only publishes cannot predict at all.
OPERATOR gives nothing inside a tenant: for a tenant's data the token carries a tenant role as well.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.kernel.context import Action, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVERYBODY = frozenset(Role)
_READERS = frozenset({Role.READER, Role.EXPERIMENTER, Role.ADMIN})
_EXPERIMENTERS = frozenset({Role.EXPERIMENTER, Role.ADMIN})
_PUBLISHERS = frozenset({Role.PUBLISHER, Role.ADMIN})
_ADMINS = frozenset({Role.ADMIN})

PERMISSIONS: Mapping[Action, frozenset[Role]] = MappingProxyType(
    {
        Action.VIEW_SELF: _EVERYBODY,
        Action.PREDICT: frozenset({Role.PREDICTOR, Role.EXPERIMENTER, Role.ADMIN}),
        Action.CHOOSE_VERSION: frozenset({Role.PUBLISHER, Role.EXPERIMENTER, Role.ADMIN}),
        Action.READ_REGISTRY: _READERS | {Role.PUBLISHER},
        Action.HASH_UNIT: _READERS,
        Action.UPLOAD_ARTIFACT: _PUBLISHERS,
        Action.REGISTER_VERSION: _PUBLISHERS,
        Action.PUBLISH_VERSION: _ADMINS,
        Action.UPDATE_MODEL: _ADMINS,
        Action.PROMOTE: _ADMINS,
        Action.WITHDRAW_VERSION: _ADMINS,
        Action.ARCHIVE_VERSION: _ADMINS,
        Action.READ_EXPERIMENTS: _READERS,
        Action.RECORD_OUTCOME: frozenset({Role.PREDICTOR, Role.EXPERIMENTER, Role.ADMIN}),
        Action.MANAGE_EXPERIMENTS: _EXPERIMENTERS,
        Action.READ_AUDIT: _ADMINS,
        Action.READ_USAGE: _READERS,
        Action.REVOKE_TOKENS: _ADMINS | {Role.OPERATOR},
        Action.READ_DOCUMENTS: _READERS,
        Action.MANAGE_DOCUMENTS: _ADMINS,
        Action.MANAGE_PLATFORM_DOCUMENTS: frozenset({Role.OPERATOR}),
        Action.ERASE: _ADMINS,
        Action.READ_INPUTS: _ADMINS,
        Action.MANAGE_TENANTS: frozenset({Role.OPERATOR}),
    }
)


@cache  # at most 64 different sets of roles
def actions_of(roles: frozenset[Role]) -> frozenset[Action]:
    """Everything that a caller with these roles may do."""
    return frozenset(action for action, may in PERMISSIONS.items() if roles & may)


def roles_for(action: Action) -> tuple[Role, ...]:
    """The roles that give `action`, in the order in which the contract lists roles."""
    return tuple(role for role in Role if role in PERMISSIONS[action])
