from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.kernel.tensors import Batch
from app.prediction.worker.wire import Hangup, decode_batch, encode_batch, parse_header

pytestmark = pytest.mark.unit
TEXT = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rows = draw(st.integers(0, 30))
    numbers = draw(arrays(np.float64, (rows, draw(st.integers(0, 4)))))
    texts = draw(st.lists(st.lists(TEXT, min_size=rows, max_size=rows).map(tuple), max_size=3))
    return Batch(rows, numbers, tuple(texts))


@given(batches())
def test_a_batch_comes_out_as_it_went_in(batch: Batch) -> None:
    header, parts = encode_batch(batch)
    back = decode_batch(header, bytearray(b"".join(parts)))
    assert back.rows == batch.rows
    assert back.texts == batch.texts
    np.testing.assert_array_equal(back.numbers, batch.numbers)


def test_long_columns_of_texts_go_in_chunks() -> None:
    column = tuple(f"text {i}" for i in range(2_500))
    header, parts = encode_batch(Batch(2_500, np.empty((2_500, 0)), (column,)))
    assert [len(part) for part in parts] == header["texts"][0]
    assert len(parts) == 3
    assert decode_batch(header, bytearray(b"".join(parts))).texts == (column,)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        encode_batch(Batch(1, np.empty((1, 0)), (("\ud800",),)))


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"{", b"\xff"])
def test_a_header_that_is_no_object_is_a_hangup(data: bytes) -> None:
    with pytest.raises(Hangup):
        parse_header(data)
