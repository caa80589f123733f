"""Inputs as they are captured: exact, bounded, and sealed for one prediction of one tenant."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.journal.codec import MAX_FRAME, decode, encode, split_frames
from app.journal.types import LARGEST_SEALED, InputRecord
from app.kernel.signature import Column, ColumnType, InputKind, Signature
from app.kernel.tensors import Batch
from app.prediction.captures import canonical, captured
from app.prediction.features import RowChecker
from app.tenancy.keys import TenantKeys, UnreadableSecret
from tests.unit.journal.records import Records

pytestmark = pytest.mark.unit
TENANT = UUID(int=7)
KEYS = TenantKeys.derive(TENANT, bytes(range(32)))
MIXED = Signature(
    (
        Column("age", ColumnType.INTEGER), Column("city", ColumnType.STRING, required=False), Column("score", ColumnType.NUMBER, required=False),
        Column("member", ColumnType.BOOLEAN), Column("note", ColumnType.STRING),
    ),
    InputKind.FRAME,
)  # fmt: skip
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_row = st.tuples(
    st.integers(-(2**53), 2**53), st.none() | _text, st.none() | st.floats(allow_nan=False, allow_infinity=False), st.booleans(), _text
).map(list)


def numbers(rows: int, columns: int) -> tuple[Signature, Batch]:
    signature = Signature(tuple(Column(f"c{n}", ColumnType.NUMBER) for n in range(columns)), InputKind.ARRAY)
    return signature, Batch(rows, np.random.default_rng(1).random((rows, columns)))


@given(st.lists(_row, min_size=1, max_size=20))
@settings(max_examples=50)
def test_what_was_sent_is_what_is_kept_value_by_value_and_type_by_type(rows: list[list[Any]]) -> None:
    told = json.loads(canonical(MIXED, RowChecker(MIXED).rows(rows)))
    assert told == {"columns": ["age", "city", "score", "member", "note"], "rows": rows, "rowCount": len(rows), "cut": False}
    assert [list(map(type, row)) for row in told["rows"]] == [
        [int, type(r[1]), type(None) if r[2] is None else float, bool, str] for r in rows
    ]


@pytest.mark.parametrize(
    ("rows", "columns", "kept", "width"), [(100, 20, 100, 20), (101, 20, 100, 20), (10_000, 100, 24, 100), (3, 9_000, 1, 2_487)]
)
def test_much_is_cut_to_the_first_hundred_rows_and_to_what_a_frame_holds_and_says_so(
    rows: int, columns: int, kept: int, width: int
) -> None:
    signature, batch = numbers(rows, columns)
    data = canonical(signature, batch)
    told = json.loads(data)
    assert (len(told["rows"]), len(told["rows"][0]), told["rowCount"], told["cut"]) == (kept, width, rows, (rows, columns) != (kept, width))
    assert np.array_equal(told["rows"], batch.numbers[:kept, :width])
    assert len(data) <= LARGEST_SEALED - 28
    assert (told["columns"] is None) == (columns == 9_000)


def test_one_text_longer_than_a_frame_leaves_the_values_before_it() -> None:
    signature = Signature((Column("a", ColumnType.NUMBER), Column("b", ColumnType.STRING), Column("c", ColumnType.NUMBER)), InputKind.FRAME)
    told = json.loads(canonical(signature, RowChecker(signature).rows([[1.5, "x" * 100_000, 2.5]])))
    assert (told["rows"], told["cut"]) == ([[1.5]], True)


async def test_the_largest_one_fits_into_a_frame_and_nothing_of_it_can_be_read_there() -> None:
    signature, batch = numbers(100, 24)
    record = Records(tenant_id=TENANT).one(unit_hash="u" * 32)
    kept = await captured(KEYS, record, signature, batch)
    frame = encode(kept)

    assert (kept.id, kept.tenant_id, kept.unit_hash, kept.at) == (record.id, TENANT, "u" * 32, record.at)
    assert len(kept.sealed) <= LARGEST_SEALED
    assert len(frame) <= MAX_FRAME
    assert decode(split_frames(frame)[0][0]) == kept
    assert str(batch.numbers[0, 0]).encode()[2:9] not in frame
    encode(InputRecord(record.id, TENANT, "u" * 64, b"x" * LARGEST_SEALED))


class TestSeal:
    def test_it_opens_for_the_same_thing_of_the_same_tenant_alone(self) -> None:
        sealed = KEYS.seal(b"secret", b"this")
        assert KEYS.unseal(sealed, b"this") == b"secret"
        stranger = TenantKeys.derive(uuid4(), bytes(range(32)))
        for keys, about, data in (
            (KEYS, b"that", sealed), (stranger, b"this", sealed), (KEYS, b"this", sealed[:-1]), (KEYS, b"this", b""),
            *((KEYS, b"this", sealed[:n] + bytes([sealed[n] ^ 1]) + sealed[n + 1 :]) for n in range(len(sealed))),
        ):  # fmt: skip
            with pytest.raises(UnreadableSecret):
                keys.unseal(data, about)

    def test_twice_the_same_is_sealed_differently_and_28_bytes_longer(self) -> None:
        first, second = KEYS.seal(b"secret", b"this"), KEYS.seal(b"secret", b"this")
        assert first != second
        assert len(first) == len(second) == 6 + 28

    def test_a_replica_with_the_same_secret_opens_it(self) -> None:
        assert TenantKeys.derive(TENANT, bytes(range(32)), 3).unseal(KEYS.seal(b"secret", b"this"), b"this") == b"secret"


def test_a_unit_has_a_pseudonym_of_every_generation_up_to_the_current_one() -> None:
    keys = TenantKeys.derive(TENANT, bytes(range(32)), 3)
    assert keys.unit_pseudonyms("u1") == [keys.unit_pseudonym("u1", n) for n in (1, 2, 3)]
    assert len(set(keys.unit_pseudonyms("u1"))) == 3
    assert KEYS.unit_pseudonyms("u1") == keys.unit_pseudonyms("u1")[:1]
