from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest, InvalidFeatures, InvalidInput
from app.graphql.http.body import from_body
from app.graphql.http.bulk import _whole
from app.graphql.http.bulk_reader import MAX_REST, holds_booleans, read
from app.kernel.packed import LooseRows, PackedRows, listed, many_in, pack
from app.kernel.signature import Column, ColumnType, InputKind, Signature
from app.prediction.features import RowChecker

pytestmark = pytest.mark.unit

NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.integers(-(2**53) + 1, 2**53 - 1), st.none())
TYPES = st.sampled_from([ColumnType.NUMBER, ColumnType.INTEGER, ColumnType.BOOLEAN, ColumnType.STRING])


MANY = 100


def many(rows: list[Any]) -> list[Any]:
    return (rows * MANY)[: max(MANY, len(rows))]


def outcome(check: Any) -> Any:
    try:
        batch = check()
    except (InvalidFeatures, InvalidInput) as error:
        return error.message, error.details
    return batch.rows, batch.numbers.tobytes(), batch.texts


@st.composite
def checked(draw: st.DrawFn) -> tuple[RowChecker, list[str], list[list[Any]]]:
    width = draw(st.integers(1, 4))
    names = [f"x{number}" for number in range(width)]
    bounds = st.one_of(st.none(), st.just(-5.0))
    columns = tuple(Column(name, draw(TYPES), required=draw(st.booleans()), minimum=draw(bounds)) for name in names)
    rows = draw(st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=4))
    sent = draw(st.permutations([*names, *draw(st.sampled_from([[], ["stranger"]]))]))[:width]
    return RowChecker(Signature(columns, InputKind.FRAME)), sent, many(rows)


@pytest.mark.parametrize(
    ("body", "there"),
    [
        (b'{"r": [[1, true]]}', True),
        (b'{"r": [[false]], "s": "x"}', True),
        (b'{"r": [ [true] ], "s": [[1]]}', True),
        (b'{"r": [{"a": true}]}', True),
        (b'{"r": [[1, 2]], "s": [ [false] ]}', True),
        (b'{"q": "us", "r": [[1, 2]], "s": true}', False),
        (b'{"r": [[1, 2]], "unit": "user"}', False),
        (b'{"s": "x"}', False),
    ],
)
def test_true_and_false_are_found_wherever_a_list_may_hold_them(body: bytes, there: bool) -> None:
    assert holds_booleans(body) is there


@given(checked(), st.booleans())
def test_many_rows_are_checked_as_the_rows_themselves_in_every_form(
    case: tuple[RowChecker, list[str], list[list[Any]]], booleans: bool
) -> None:
    checker, names, lists = case
    objects = [dict(zip(names, row, strict=True)) for row in lists]
    matrices: tuple[dict[str, Any], ...] = (
        {},
        {"columns": names},
        {"columns": [name for name, _ in zip(checker._names, names, strict=True)]},
    )
    for rows in (lists, objects):
        packed = pack(rows, booleans=booleans)
        assert packed is not None
        assert packed.listed() == rows
        assert packed.listed(3) == rows[:3]
        for sent in (packed, LooseRows(rows)):
            assert outcome(lambda sent=sent: checker.rows([sent])) == outcome(lambda rows=rows: checker.rows(rows))
            for matrix in matrices:
                plain = outcome(lambda matrix=matrix, rows=rows: checker.matrix({**matrix, "data": rows}))
                assert outcome(lambda matrix=matrix, sent=sent: checker.matrix({**matrix, "data": sent})) == plain


@pytest.mark.parametrize(
    "rows",
    [
        many([[1.0], [1.0, 2.0]]),
        many([{"a": 1}, {"b": 1}]),
        many([[1.0], {"a": 1}]),
        many([[True]]),
        many([["text"]]),
        many([[[1.0]]]),
        many([[2**53]]),
        many([[1e16]]),
        many([[10**400]]),
        many([[]]),
        many([1.0]),
        [],
    ],
)
def test_what_is_not_many_rows_of_exact_numbers_is_not_packed(rows: Any) -> None:
    assert pack(rows) is None
    if True not in rows[:1] and rows[:1] != [[True]]:
        assert pack(rows, booleans=False) is None


def test_a_body_is_read_into_arrays_pieces_and_what_is_left_of_it() -> None:
    rows, matrix, loose = many([{"a": 1, "b": None}]), {"columns": ["a"], "data": many([[2.5]])}, [["x", 1], ["y", None]] * 4_000
    body = orjson.dumps({"query": "q", "operationName": "Q", "variables": {"r": rows, "m": matrix, "l": loose, "model": "risk"}})
    found = read(body)
    assert found is not None
    header, parts = orjson.loads(found[0]), found[1]
    assert header["rest"] == {
        "query": "q",
        "operationName": "Q",
        "variables": {"r": None, "m": {"columns": ["a"], "data": None}, "l": None, "model": "risk"},
    }
    assert header["taken"] == [
        {"variable": "r", "inside": False, "names": ["a", "b"], "shape": [MANY, 2]},
        {"variable": "m", "inside": True, "names": None, "shape": [MANY, 1]},
        {"variable": "l", "inside": False, "pieces": [len(part) for part in parts[2:]]},
    ]
    assert np.isnan(np.frombuffer(parts[0]).reshape(-1, 2)[:, 1]).all()
    assert len(parts) == 2 + 4
    assert [row for part in parts[2:] for row in orjson.loads(part)] == loose


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "The body is not JSON"),
        (b"[]", "The body is a JSON array"),
        (b"\xff", "The body is not UTF-8"),
        (b"[" * 400_001, "opening brackets"),
        (orjson.dumps({"variables": {"r": [[1.0]] * 100_001}}), "arrays and objects"),
    ],
)
def test_a_body_that_is_refused_is_refused_in_the_same_words(body: bytes, why: str) -> None:
    found = read(body)
    assert found is not None
    told = orjson.loads(found[0])["refused"]
    with pytest.raises(BadRequest, match=why) as refused:
        from_body(body)
    assert told == refused.value.message


@pytest.mark.parametrize("variables", [{"r": [1] * 20_001}, {"i": {"sample": ["x"] * 20_001}}, {"m": many([[1.0]]), "r": [1] * 300_000}])
def test_lists_that_no_argument_takes_are_refused_by_the_reader_in_the_same_words(variables: dict[str, Any]) -> None:
    body = orjson.dumps({"query": "q", "variables": variables})
    found = read(body)
    assert found is not None
    with pytest.raises(InvalidInput, match="holds lists of") as refused:
        from_body(body)
    with pytest.raises(InvalidInput) as told:
        _whole(body, orjson.loads(found[0]), bytearray())
    assert told.value.message == refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"variables": 7}',
        orjson.dumps({"variables": {"model": "risk"}}),
        orjson.dumps({"variables": {"r": many([[1.0]]), "deep": {"a": [[[[[[[[[[[[[7]]]]]]]]]]]]]}}}),
        orjson.dumps({"variables": {"r": many([[1.0]]), "long": "x" * MAX_REST}}),
        orjson.dumps({"variables": {"r": [[1.0], None]}}),
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_who_explains_it(body: bytes) -> None:
    assert read(body) is None


def test_one_row_is_not_many() -> None:
    packed = PackedRows(None, np.zeros((3, 1)))
    assert many_in([packed]) is many_in(packed) is packed
    assert many_in([[1.0]]) is many_in([packed, packed]) is many_in(None) is None
    assert listed([[1.0], [2.0]], 1) == [[1.0]]
    assert listed([LooseRows([["a"], ["b"]])], 1) == [["a"]]
