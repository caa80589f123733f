"""Large answers in pieces are the same JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import orjson
import pytest

from app.graphql.http.large_answers import written_out

pytestmark = pytest.mark.unit
NUMBERS = np.random.default_rng(1).normal(size=(10_000, 3))


def answer() -> dict[str, Any]:
    gaps = NUMBERS.copy()
    gaps[5, 1] = np.nan
    batch = {"rowCount": 3, "labels": ["løk", None] * 6_000, "probabilities": gaps, "values": NUMBERS[:, 0].copy(), "none": None}
    return {"a": batch, "b": {"probabilities": NUMBERS[:2]}, "c": None, "d": 7}


async def test_a_large_answer_is_the_same_json_as_in_one_piece() -> None:
    expected = orjson.dumps(answer(), option=orjson.OPT_SERIALIZE_NUMPY)
    data = answer()
    await written_out(data)
    assert [name for name, value in data["a"].items() if isinstance(value, orjson.Fragment)] == ["labels", "probabilities", "values"]
    assert orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY) == expected
    await written_out(None)


async def test_others_have_their_turn_between_the_pieces() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await written_out({"a": {"probabilities": NUMBERS}})
    beside.cancel()
    assert turns >= 4
