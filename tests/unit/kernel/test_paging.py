"""Cursors are the client's text: whatever they hold, they are a page or bad input."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import InvalidInput
from app.kernel.paging import cursor, page_request

pytestmark = pytest.mark.unit


def test_a_cursor_comes_back_as_the_key_it_was_made_of() -> None:
    assert page_request("versions", 1, cursor("versions", 7)).after_number() == 7
    assert page_request("models", 1, cursor("models", "æ")).after_text() == "æ"
    assert page_request("models", 1, None).after_text() is None
    assert page_request("versions", 1, None).after_number() is None


@pytest.mark.parametrize("key", [(2**31,), (2**63,), (2**64 - 1,), (-1,), ("7",), ("x",), ("9" * 5000,), (1, 1), ("a\0",)])
def test_a_key_that_no_numbered_list_has_is_bad_input(key: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInput, match="not a cursor"):
        page_request("versions", 1, cursor("versions", *key)).after_number()


@pytest.mark.parametrize("key", [("a\0b",), ("\0",), (1,), ("a", "b")])
def test_a_key_that_no_named_list_has_is_bad_input(key: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInput, match="not a cursor"):
        page_request("models", 1, cursor("models", *key)).after_text()
