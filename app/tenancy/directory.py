"""All tenants in memory, by the id that tokens carry: what a request needs to know about its tenant, without a database."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.errors import ConfigurationError
from app.tenancy.keys import TenantKeys, UnreadableSecret
from app.tenancy.store import stored_tenant, tenants_query
from app.tenancy.types import TenantStatus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from app.tenancy.keys import MasterKey
    from app.tenancy.types import StoredTenant, Tenant

__all__ = ["TenantDirectory", "TenantEntry", "stored_tenant", "tenants_query"]  # with what `apply` takes, and how it is read
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TenantEntry:
    """One tenant with its keys open. Replaced whole when it changes, so whoever holds one sees one state."""

    tenant: Tenant
    keys: TenantKeys = field(repr=False)

    @property
    def active(self) -> bool:
        return self.tenant.status is TenantStatus.ACTIVE


class TenantDirectory:
    """The tenants that this process knows. Filled from the database at start and whenever one changes; erased ones are not in it."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key
        self._by_slug: dict[str, TenantEntry] = {}
        self._by_id: dict[UUID, TenantEntry] = {}
        self._unreadable: dict[UUID, str] = {}

    def find(self, slug: str) -> TenantEntry | None:
        """The tenant of this name ("clinic"), or None."""
        return self._by_slug.get(slug)

    def by_id(self, tenant_id: UUID) -> TenantEntry | None:
        return self._by_id.get(tenant_id)

    def entries(self) -> list[TenantEntry]:
        """All of them, newest first."""
        return sorted(self._by_id.values(), key=lambda entry: (entry.tenant.created_at, entry.tenant.id), reverse=True)

    @property
    def unreadable(self) -> dict[UUID, str]:
        """Tenants whose secret the master key does not open, with the reason; they are served by nobody until it does."""
        return dict(self._unreadable)

    def apply(self, changed: Iterable[StoredTenant]) -> None:
        """Takes in new and changed tenants. One whose secret does not open is shut out, and leaves the others alone."""
        for stored in changed:
            tenant = stored.tenant
            if tenant.status is TenantStatus.ERASED:
                self._forget(tenant.tenant_id)
                continue
            try:
                secret = self._master_key.unwrap(tenant.tenant_id, stored.wrapped_secret)
            except UnreadableSecret as error:
                self._forget(tenant.tenant_id)
                self._unreadable[tenant.tenant_id] = str(error)
                _log.error("a tenant's secret does not open", extra={"tenant": tenant.id, "reason": str(error)})
                continue
            keys = TenantKeys.derive(tenant.tenant_id, secret, stored.pseudonym_generation, stored.assignment_generation)
            # Replaced in place: another thread reads meanwhile, and must not find a tenant missing.
            before = self._by_id.get(tenant.tenant_id)
            self._by_slug[tenant.id] = self._by_id[tenant.tenant_id] = TenantEntry(tenant, keys)
            if before is not None and before.tenant.id != tenant.id:
                self._by_slug.pop(before.tenant.id, None)
            self._unreadable.pop(tenant.tenant_id, None)

    def require_readable(self) -> None:
        """For the start: raises ConfigurationError where there are tenants and the master key opens none of them."""
        if self._unreadable and not self._by_id:
            reason = next(iter(self._unreadable.values()))
            raise ConfigurationError(
                f"The master key opens none of the {len(self._unreadable)} tenants ({reason}). "
                "TURNOUT_MASTER_KEY_FILE must be the file with which they were made, the same on every replica."
            )

    def _forget(self, tenant_id: UUID) -> None:
        self._unreadable.pop(tenant_id, None)
        if (old := self._by_id.pop(tenant_id, None)) is not None:
            self._by_slug.pop(old.tenant.id, None)
