"""Keyset paging, the same for every list: `first` and an opaque `after`."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from app.errors import InvalidInput

T = TypeVar("T")
LARGEST_PAGE = 100
_NUMBERS = 2**31  # version numbers and revisions
_NO_CURSOR = "after is not a cursor of this list: send an endCursor that it answered with."


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How many, and behind which key. `after` is the list's sort key, or None for the beginning."""

    first: int
    after: tuple[str | int, ...] | None

    def after_number(self) -> int | None:
        """`after` of a list that is sorted by one number of 32 bits; raises InvalidInput. A cursor is the client's text."""
        if self.after is None:
            return None
        match self.after:
            case (int(number),) if 0 <= number < _NUMBERS:
                return number
        raise InvalidInput(_NO_CURSOR)

    def after_text(self) -> str | None:
        """`after` of a list that is sorted by one text; raises InvalidInput where PostgreSQL has no way to write it."""
        if self.after is None:
            return None
        match self.after:
            case (str(text),) if "\0" not in text:  # no half surrogates: JSON was decoded
                return text
        raise InvalidInput(_NO_CURSOR)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items` with the cursor of each, and whether there are more."""

    items: list[T]
    cursors: list[str]
    has_next: bool
    has_previous: bool


def page_request(kind: str, first: int, after: str | None) -> PageRequest:
    """A checked request; raises InvalidInput for `first` outside 1 to 100 or a cursor that is not one of this `kind` of list."""
    if not 1 <= first <= LARGEST_PAGE:
        raise InvalidInput(f"first is {first}; it must be 1 to {LARGEST_PAGE}.")
    return PageRequest(first, None if after is None else _decode(kind, after))


def cursor(kind: str, *key: str | int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([kind, *key])).decode().rstrip("=")


def make_page(kind: str, request: PageRequest, rows: list[tuple[tuple[str | int, ...], T]]) -> Page[T]:
    """A page from up to `first + 1` (key, item) rows: the extra row only tells that there is more."""
    kept = rows[: request.first]
    return Page(
        items=[item for _, item in kept],
        cursors=[cursor(kind, *key) for key, _ in kept],
        has_next=len(rows) > request.first,
        has_previous=request.after is not None,
    )


def _decode(kind: str, text: str) -> tuple[str | int, ...]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        data = None
    if isinstance(data, list) and len(data) > 1 and data[0] == kind and all(type(v) in (str, int) for v in data):
        return tuple(data[1:])
    raise InvalidInput(_NO_CURSOR)
