"""Who is asking, decided once a request, before any room is entered."""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from app.errors import PermissionDenied

if TYPE_CHECKING:
    from uuid import UUID

    from app.kernel.clock import Deadline

logged_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)  # which request a line of the log belongs to


class Role(StrEnum):
    READER = "READER"
    PREDICTOR = "PREDICTOR"
    PUBLISHER = "PUBLISHER"
    EXPERIMENTER = "EXPERIMENTER"
    ADMIN = "ADMIN"
    OPERATOR = "OPERATOR"


class Action(StrEnum):
    """What a caller may or may not do. Which role may do which is one table: `app/tenancy/permissions.py`."""

    VIEW_SELF = "VIEW_SELF"
    PREDICT = "PREDICT"
    CHOOSE_VERSION = "CHOOSE_VERSION"  # `version`, and any alias but production
    READ_REGISTRY = "READ_REGISTRY"
    HASH_UNIT = "HASH_UNIT"
    UPLOAD_ARTIFACT = "UPLOAD_ARTIFACT"
    REGISTER_VERSION = "REGISTER_VERSION"
    PUBLISH_VERSION = "PUBLISH_VERSION"  # into another tenant, of which the caller proves to be an ADMIN as well
    UPDATE_MODEL = "UPDATE_MODEL"
    PROMOTE = "PROMOTE"
    WITHDRAW_VERSION = "WITHDRAW_VERSION"
    ARCHIVE_VERSION = "ARCHIVE_VERSION"
    READ_EXPERIMENTS = "READ_EXPERIMENTS"
    RECORD_OUTCOME = "RECORD_OUTCOME"
    MANAGE_EXPERIMENTS = "MANAGE_EXPERIMENTS"  # concluding with a promotion needs PROMOTE as well
    READ_AUDIT = "READ_AUDIT"
    READ_USAGE = "READ_USAGE"
    REVOKE_TOKENS = "REVOKE_TOKENS"  # an ADMIN's in the own tenant, an operator's in any
    READ_DOCUMENTS = "READ_DOCUMENTS"
    MANAGE_DOCUMENTS = "MANAGE_DOCUMENTS"
    MANAGE_PLATFORM_DOCUMENTS = "MANAGE_PLATFORM_DOCUMENTS"  # those for all tenants
    ERASE = "ERASE"  # a unit, for good
    READ_INPUTS = "READ_INPUTS"  # what was sent to be predicted, where it is kept
    MANAGE_TENANTS = "MANAGE_TENANTS"


class RequestContext(NamedTuple):  # made on every request: a quarter of a frozen dataclass's cost
    """The verified caller. The tenant comes from the token and from nowhere else."""

    tenant_id: UUID
    tenant: str  # the id that people see, "clinic"
    subject: str
    roles: frozenset[Role]
    allowed: frozenset[Action]
    unit: str | None  # set where the issuer pins the unit (unitClaim): another `unit` is FORBIDDEN
    request_id: str
    deadline: Deadline

    def require(self, action: Action) -> None:
        """Returns where the caller may do `action`; raises PermissionDenied that names it and the roles at hand."""
        if action not in self.allowed:
            have = ", ".join(sorted(self.roles)) or "none"
            raise PermissionDenied(f"This needs the permission {action}, which your roles ({have}) do not give.")
