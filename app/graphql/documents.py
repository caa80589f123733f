"""Parsed and validated documents, kept so that a known one costs nothing.

A document is known by the sha256 of its text that we compute, under the digest of the schema that it was validated against. What a tenant
sent is found again by that tenant alone; the parsed value behind it is shared.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from graphql import print_schema

from app.graphql.errors import IntrospectionDisabled
from app.graphql.examining import Document, Examiner

if TYPE_CHECKING:
    from uuid import UUID

    from graphql import GraphQLSchema

    from app.graphql.errors import ErrorMapper
    from app.graphql.limits import Limits

__all__ = ["Document", "DocumentCache", "DocumentStore"]


class DocumentCache:
    """Least recently used first, in shares. Nobody holds more than `share_chars`. Where all together would hold more than `total_chars`,
    tenants beyond the `busy` ones seen last give way first, the longest away before the others; then whoever holds most, the asking
    tenant itself among equals. So a busy tenant that holds less than `total_chars / busy` never loses a document to another.
    """

    def __init__(self, *, share_chars: int = 64 * 1024, total_chars: int = 512 * 1024, busy: int = 64) -> None:
        self._share = share_chars
        self._most = total_chars
        self._busy = busy
        self._total = 0
        self._tenants: OrderedDict[UUID, OrderedDict[str, Document]] = OrderedDict()  # least recently seen tenant first
        self._held: dict[UUID, int] = {}
        self._shared: dict[str, tuple[Document, int]] = {}  # digest -> value, how many tenants hold it

    def find(self, tenant: UUID, digest: str) -> Document | None:
        """What this tenant sent before."""
        documents = self._tenants.get(tenant)
        if documents is None or (document := documents.get(digest)) is None:
            return None
        documents.move_to_end(digest)
        self._tenants.move_to_end(tenant)
        return document

    def shared(self, digest: str) -> Document | None:
        """What any tenant sent before: to save work, never to answer a tenant that did not send the text."""
        entry = self._shared.get(digest)
        return entry[0] if entry else None

    def keep(self, tenant: UUID, document: Document) -> None:
        """Adds it to the tenant's share, which makes room in that share first."""
        weight = document.weight
        if weight > self._share or self.find(tenant, document.digest) is not None:
            return
        if tenant in self._tenants:
            self._tenants.move_to_end(tenant)
        while self.held_by(tenant) + weight > self._share:
            self._drop_oldest(tenant)
        while self._total + weight > self._most:
            giving_way = self._who_gives_way(tenant, weight)
            if giving_way not in self._tenants:
                return  # the asking tenant, and it has nothing to give
            self._drop_oldest(giving_way)
        self._tenants.setdefault(tenant, OrderedDict())[document.digest] = document
        self._tenants.move_to_end(tenant)
        self._held[tenant] = self.held_by(tenant) + weight
        self._total += weight
        holders = self._shared.get(document.digest, (document, 0))[1]
        self._shared[document.digest] = (document, holders + 1)

    def held_by(self, tenant: UUID) -> int:
        """Characters in this tenant's share."""
        return self._held.get(tenant, 0)

    def _who_gives_way(self, asking: UUID, more: int) -> UUID:
        if len(self._tenants) + (asking not in self._tenants) > self._busy:
            return next(iter(self._tenants))
        heaviest = max(self._tenants, key=self._held.__getitem__)
        return asking if self.held_by(asking) + more >= self._held[heaviest] else heaviest

    def _drop_oldest(self, tenant: UUID) -> None:
        documents = self._tenants[tenant]
        digest, document = documents.popitem(last=False)
        self._total -= document.weight
        self._held[tenant] -= document.weight
        if not documents:
            del self._tenants[tenant], self._held[tenant]
        shared, holders = self._shared[digest]
        if holders == 1:
            del self._shared[digest]
        else:
            self._shared[digest] = (shared, holders - 1)


class DocumentStore:
    """Documents for one schema."""

    def __init__(
        self,
        schema: GraphQLSchema,
        *,
        limits: Limits,
        mapper: ErrorMapper,
        cache: DocumentCache,
        suggestions: bool,
        plans: bool = True,
    ) -> None:
        self._schema_digest = hashlib.sha256(print_schema(schema).encode()).hexdigest()[:32]
        self._examiner = Examiner(schema, limits, mapper, suggestions=suggestions, plans=plans)
        self._cache = cache

    def find(self, tenant: UUID, sha256: str) -> Document | None:
        """The document of this text digest, where this very tenant sent its text before."""
        return self._cache.find(tenant, self._schema_digest + sha256)

    def prepare(self, tenant: UUID, text: str, sha256: str, request_id: str, *, may_introspect: bool) -> Document:
        """The document of a text that this tenant has not sent before (or whose entry is gone); kept for the next time.

        Raises IntrospectionDisabled before any validation, so that nobody pays for what will not be run.
        """
        digest = self._schema_digest + sha256
        document = self._cache.shared(digest) or self._examiner.look_at(digest, text, request_id, may_introspect=may_introspect)
        if document.introspects and not may_introspect:
            raise IntrospectionDisabled("The schema may be asked for by operators only.")
        self._cache.keep(tenant, document)
        return document
