"""All tenants in memory, by the names that tokens carry: what a request needs to know about its tenant, without a database."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.errors import ConfigurationError
from app.tenancy.documents.book import DocumentBook
from app.tenancy.keys import TenantKeys, UnreadableSecret
from app.tenancy.store import stored_tenant, tenant_ids, tenant_queries, tenants_of, tenants_query
from app.tenancy.types import TenantStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from app.tenancy.keys import MasterKey
    from app.tenancy.types import Principal, StoredTenant, Tenant, TokenDenial

# With what `apply` takes, and how it is read.
__all__ = ["Denied", "TenantDirectory", "TenantEntry", "stored_tenant", "tenant_ids", "tenant_queries", "tenants_of", "tenants_query"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Denied:
    """Tokens of a tenant that work no longer, however good they are. Asked on every request of a tenant that has any: two lookups."""

    tokens: frozenset[str] = frozenset()  # by jti
    subjects: Mapping[str, float] = field(default_factory=dict)  # those issued before, in Unix seconds

    @classmethod
    def of(cls, denials: Iterable[TokenDenial]) -> Denied:
        """As they stand in the table, in any order."""
        tokens: set[str] = set()
        subjects: dict[str, float] = {}
        for denial in denials:
            if denial.jti is not None:
                tokens.add(denial.jti)
            if denial.subject is not None:
                subjects[denial.subject] = max(denial.issued_before_s, subjects.get(denial.subject, -math.inf))
        return cls(frozenset(tokens), subjects)

    def holds(self, subject: str, jti: str | None, issued_at_s: float | None) -> bool:
        """Whether the token is denied. One that does not say when it was issued counts as issued before."""
        if jti is not None and jti in self.tokens:
            return True
        before = self.subjects.get(subject)
        return before is not None and (issued_at_s is None or issued_at_s < before)


@dataclass(frozen=True, slots=True)
class TenantEntry:
    """One tenant with its keys open. Replaced whole when it changes, so whoever holds one sees one state."""

    tenant: Tenant
    keys: TenantKeys = field(repr=False)
    denied: Denied | None = None  # None: nothing is
    active: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "active", self.tenant.status is TenantStatus.ACTIVE)


class TenantDirectory:
    """The tenants that this process knows. Filled from the database at start and whenever one changes; erased ones are not in it."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key
        self.documents = DocumentBook()
        self._by_slug: dict[str, TenantEntry] = {}
        self._by_id: dict[UUID, TenantEntry] = {}
        self._by_name: dict[tuple[str, str], TenantEntry] = {}  # by issuer and external id
        self._erased: dict[str, UUID] = {}
        self._unreadable: dict[UUID, str] = {}
        self.filled = False  # whether anybody has said yet which tenants there are
        self._changes = 0
        self._newest: tuple[int, list[TenantEntry]] = (0, [])
        # What each request asks is the dicts' own look-up; they are changed in place and never replaced.
        self.find: Callable[[str], TenantEntry | None] = self._by_slug.get  # the tenant of this name ("clinic"), or None
        self.by_id: Callable[[UUID], TenantEntry | None] = self._by_id.get

    def named(self, issuer: str, external_id: str) -> TenantEntry | None:
        """The tenant that this issuer's tokens know by this name, or None."""
        return self._by_name.get((issuer, external_id))

    def meant(self, principal: Principal) -> TenantEntry | None:
        """The tenant of a token, or None. A mapped name goes first: what an operator decided for this issuer beats what the token's word
        happens to mean here.
        """
        entry = self._by_name.get((principal.issuer, principal.tenant))
        return self._by_slug.get(principal.tenant) if entry is None and principal.own_names else entry

    def erased(self, slug: str) -> UUID | None:
        """The tenant that had this name and was erased, or None: the name stays taken."""
        return self._erased.get(slug)

    def entries(self) -> list[TenantEntry]:
        """All of them, newest first; the same list until one changes, so nobody may change it."""
        changes, entries = self._newest
        if changes != self._changes:
            changes = self._changes  # read first: what another thread changes while this one sorts is sorted in again
            entries = list(self._by_id.values())  # at once, for the other thread may add one
            entries.sort(key=lambda entry: (entry.tenant.created_at, entry.tenant.id), reverse=True)
            self._newest = (changes, entries)
        return entries

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
                self._erased[tenant.id] = tenant.tenant_id
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
            denied = Denied.of(stored.denials) if stored.denials else None
            entry = self._by_slug[tenant.id] = self._by_id[tenant.tenant_id] = TenantEntry(tenant, keys, denied)
            for name in tenant.names:
                self._by_name[name.issuer, name.external_id] = entry
            if before is not None:
                self._drop_names(before, entry)
            self._unreadable.pop(tenant.tenant_id, None)
            self._changes += 1
        self.filled = True

    def forget_others(self, there: set[UUID]) -> list[UUID]:
        """Those that are not among `there` are known no longer: their ids."""
        others = [tenant_id for tenant_id in list(self._by_id) if tenant_id not in there]
        for tenant_id in others:
            self._forget(tenant_id)
            self.documents.apply([tenant_id], {}, None)
        return others

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
            self._drop_names(old, None)
        self._changes += 1

    def _drop_names(self, old: TenantEntry, new: TenantEntry | None) -> None:
        """Names that the tenant has no longer; whose another tenant is by now stays that one's."""
        if new is None or new.tenant.id != old.tenant.id:
            self._by_slug.pop(old.tenant.id, None)
        for name in old.tenant.names:
            key = (name.issuer, name.external_id)
            holder = self._by_name.get(key)
            if holder is not None and holder is not new and holder.tenant.tenant_id == old.tenant.tenant_id:
                del self._by_name[key]
