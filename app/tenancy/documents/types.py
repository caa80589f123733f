"""Registered documents as values that cross rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class DocumentText:
    """A document under the id by which clients send it. `sha256` is of the text, in hex, and often the id itself."""

    id: str
    text: str
    sha256: str


@dataclass(frozen=True, slots=True)
class RegisteredDocument:
    """A document that is registered, and since when, by whom."""

    id: str
    text: str
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """The documents of one tenant, or those of all tenants. `found` has each under its id and under the sha256 of its text."""

    found: Mapping[str, DocumentText]

    def __bool__(self) -> bool:
        return bool(self.found)
