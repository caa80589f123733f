"""All registered documents in memory, and who may run nothing else: what a request asks, without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.kernel.context import Role
from app.tenancy.documents.rules import known_id
from app.tenancy.documents.types import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from app.kernel.context import RequestContext
    from app.tenancy.documents.types import DocumentText

_EMPTY = Shelf({})
_PREDICTORS = frozenset({Role.PREDICTOR})


class DocumentBook:
    """The documents that this process knows. Shelves are replaced whole: another thread reads meanwhile."""

    def __init__(self) -> None:
        self._own: dict[UUID, Shelf] = {}
        self._for_all = _EMPTY

    def apply(self, tenants: Iterable[UUID], own: Mapping[UUID, Shelf], for_all: Shelf | None) -> None:
        """Takes in what these tenants have now. `for_all` None: as it was."""
        for tenant_id in tenants:
            if (shelf := own.get(tenant_id)) is not None:
                self._own[tenant_id] = shelf
            else:
                self._own.pop(tenant_id, None)
        if for_all is not None:
            self._for_all = for_all

    def find(self, tenant_id: UUID, sent: str) -> DocumentText | None:
        """The document that the tenant's clients mean by this id or sha256, or None. The tenant's own goes before one for all."""
        own = self._own.get(tenant_id)
        if own is None and not self._for_all.found:
            return None
        name = known_id(sent)
        return (own.found.get(name) if own is not None else None) or self._for_all.found.get(name)

    def has_own(self, tenant_id: UUID) -> bool:
        """Whether the tenant has registered any; those for all tenants do not count."""
        return tenant_id in self._own


class DocumentPolicy:
    """What the HTTP endpoint asks, `find` of the book itself. `only`: roles for which nothing but registered documents runs; None is the
    default.

    The default: PREDICTOR in production, once the tenant has registered a document. Tokens of that role lie in phones and pages.
    """

    def __init__(self, book: DocumentBook, only: frozenset[Role] | None, *, development: bool) -> None:
        self._book = book
        self.find = book.find
        self._only, self._always = (only, True) if only is not None else (frozenset() if development else _PREDICTORS, False)

    def alone(self, ctx: RequestContext) -> bool:
        """Whether the caller may run nothing but registered documents: where all of the caller's roles are such."""
        return bool(ctx.roles) and ctx.roles <= self._only and (self._always or self._book.has_own(ctx.tenant_id))
