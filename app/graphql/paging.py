"""Relay connections, made from the kernel's pages."""

from __future__ import annotations

from typing import Any

import strawberry

from app.kernel.paging import Page


@strawberry.type
class PageInfo:
    start_cursor: str | None
    end_cursor: str | None
    has_next_page: bool
    has_previous_page: bool


def connection(kind: type[Any], edge: type[Any], page: Page[Any]) -> Any:
    """A connection of this `kind` with an `edge` for each item of the page."""
    info = PageInfo(
        start_cursor=page.cursors[0] if page.cursors else None,
        end_cursor=page.cursors[-1] if page.cursors else None,
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
    )
    edges = [edge(cursor=cursor, node=item) for cursor, item in zip(page.cursors, page.items, strict=True)]
    return kind(edges=edges, page_info=info)


def first_of(first: int | None) -> int:
    """How many: 20 where the client sent null."""
    return 20 if first is None else first
