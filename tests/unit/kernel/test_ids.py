"""Prediction ids: ordered, unique, and known as ours without a look-up."""

from __future__ import annotations

from uuid import UUID

import pytest
from asyncpg.pgproto.pgproto import UUID as DriversUuid  # noqa: N811  a class, whatever its capitals
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.kernel.ids import IdMint, is_genuine, minted_at_ms
from app.kernel.names import check_name, check_unit, folded
from app.kernel.paging import make_page, page_request

pytestmark = pytest.mark.unit

KEY, OTHER = b"k" * 32, b"o" * 32


class FixedClock:
    def time_ms(self) -> int:
        return 1_700_000_000_123


def test_a_minted_id_is_a_uuid7_of_its_moment_and_genuine_for_its_tenant_alone() -> None:
    made = IdMint(FixedClock()).mint(KEY)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert minted_at_ms(made) == 1_700_000_000_123
    assert is_genuine(made, KEY)
    assert not is_genuine(made, OTHER)


def test_a_million_ids_of_one_millisecond_are_all_different() -> None:
    mint = IdMint(FixedClock())
    assert len({mint.mint(KEY).int >> 32 for _ in range(200_000)}) == 200_000


@given(st.integers(0, 127))
def test_an_id_with_any_bit_changed_is_a_forgery(bit: int) -> None:
    made = IdMint(FixedClock()).mint(KEY)
    assert not is_genuine(UUID(int=made.int ^ (1 << bit)), KEY)


@pytest.mark.parametrize("name", ["a", "a1", "credit-risk-2", "a" * 48])
def test_a_good_name_is_taken(name: str) -> None:
    assert check_name("model", name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "a-", "-a", "a--b", "a_b", "a b", "é", "a" * 49, "a\n"])
def test_a_bad_name_is_refused_with_what_a_good_one_looks_like(name: str) -> None:
    with pytest.raises(InvalidInput, match="credit-risk-2"):
        check_name("model", name)


@pytest.mark.parametrize("unit", ["", "é" * 129, "\ud800"])
def test_a_unit_has_1_to_256_bytes(unit: str) -> None:
    with pytest.raises(InvalidInput):
        check_unit(unit)
    assert check_unit("é" * 128) == "é" * 128


def test_two_names_that_differ_by_hyphens_alone_fold_alike() -> None:
    assert folded("credit-risk") == folded("creditrisk") == folded("c-redit-risk")
    assert folded("credit-risk") != folded("credit-risk-2")


@given(st.lists(st.integers(0, 10_000), unique=True, max_size=30), st.integers(1, 10))
def test_pages_walk_a_list_once_and_in_order(keys: list[int], first: int) -> None:
    keys.sort()
    seen: list[int] = []
    after = None
    while True:
        request = page_request("things", first, after)
        rest = [k for k in keys if request.after is None or k > request.after[0]]
        page = make_page("things", request, [((k,), k) for k in rest[: first + 1]])
        seen += page.items
        if not page.has_next:
            break
        after = page.cursors[-1]
    assert seen == keys


@pytest.mark.parametrize("after", ["", "x", "bm9wZQ", "W10", "WyJvdGhlciIsMV0", "é", "[" * 50])
def test_a_cursor_of_another_list_or_none_at_all_is_refused(after: str) -> None:
    with pytest.raises(InvalidInput, match="endCursor"):
        page_request("things", 20, after)


@pytest.mark.parametrize("first", [0, -1, 101])
def test_first_is_1_to_100(first: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 100"):
        page_request("things", first, None)


def test_an_id_may_be_of_a_drivers_own_kind_and_is_the_same_id() -> None:
    made = IdMint(FixedClock(), DriversUuid).mint(KEY)
    assert type(made) is DriversUuid
    assert made == UUID(bytes=made.bytes)
    assert is_genuine(made, KEY)
    assert minted_at_ms(made) == 1_700_000_000_123
