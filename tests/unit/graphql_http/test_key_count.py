"""Keys are counted before an object is made, and exactly."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.graphql.http.body import from_body
from app.graphql.http.bulk_reader import MAX_KEYS_ELSEWHERE, read
from app.graphql.http.key_count import count, count_keys, count_rare
from app.graphql.http.strict_json import MAX_KEYS

pytestmark = pytest.mark.unit


class Members(tuple[Any, ...]):
    """An object as it is written: a name may stand twice."""

    __slots__ = ()


TEXTS = st.text(st.sampled_from('{}:"\\[],aé\n'), max_size=6)
VALUES = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(TEXTS, inner), max_size=5).map(Members),
    max_leaves=30,
)


def written(value: Any) -> str:
    if isinstance(value, Members):
        return "{" + ", ".join(f"{json.dumps(name)}:{written(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@given(value=VALUES, indent=st.sampled_from(["", " \n"]))
def test_keys_are_counted_as_a_parser_counts_them_whatever_strings_hold(value: Any, indent: str) -> None:
    sizes: list[int] = []
    text = indent + written(value) + indent
    json.loads(text, object_pairs_hook=lambda pairs: sizes.append(len(pairs)))
    assert count_keys(text.encode()) == (max(sizes, default=0), sum(sizes))


@given(data=st.binary(max_size=60) | st.text(st.sampled_from('{}:"\\a,1'), max_size=60).map(str.encode))
def test_any_bytes_have_a_count(data: bytes) -> None:
    largest, together = count_keys(data)
    assert 0 <= largest <= together <= data.count(b":")


def body(variables: Any) -> bytes:
    return orjson.dumps({"query": "{add}", "variables": variables})


def keys(count: int, start: int = 0) -> dict[str, int]:
    return {f"k{number}": 1 for number in range(start, start + count)}


@pytest.mark.parametrize("hidden", [{}, {"a{": "}"}, {"a": {}}, {"a": "\\"}, {"a": [{"b": '":"'}]}])
def test_an_object_with_more_keys_than_any_model_has_columns_is_refused_whatever_stands_between_them(hidden: dict[str, Any]) -> None:
    half = MAX_KEYS // 2
    fits = {**keys(half), **hidden, **keys(half - len(hidden), half)}
    assert from_body(body({"row": fits})).variables == {"row": fits}
    for refuse in (from_body, refused_by_the_reader):
        with pytest.raises(BadRequest, match="The body has an object of 20,001 keys; at most 20,000 are taken"):
            refuse(body({"row": {**fits, "more": 1}}))


@pytest.mark.parametrize("times", [0, 1, 100, 5_000])
def test_a_sign_is_counted_alike_in_short_texts_and_in_long_ones(times: int) -> None:
    text = b'{"a": [1.25, 2]} ' * times
    assert [count(text, sign) for sign in (b"[", b",", b":", b"x")] == [times, times, times, 0]


def test_a_name_that_stands_twice_counts_twice() -> None:
    with pytest.raises(BadRequest, match="100,001 keys"):
        from_body(b'{"variables":{' + b'"":1,' * 100_000 + b'"":1}}')


def test_the_rows_of_a_batch_may_have_as_many_keys_as_the_body_takes() -> None:
    row = keys(100)
    found = read(body({"rows": [row] * 10_000}))
    assert found is not None
    assert orjson.loads(found[0])["taken"][0]["shape"] == [10_000, 100]
    texts = read(body({"rows": [{**keys(500, start), "t": "a:b"} for start in range(1_000)]}))
    assert texts is not None
    assert len(orjson.loads(texts[0])["taken"][0]["pieces"]) > 100


def test_objects_that_are_no_rows_of_a_batch_have_a_bound_together() -> None:
    sample = {"i": {"sample": [*[keys(200)] * 999, keys(196)]}}
    assert count_keys(body(sample)).together == MAX_KEYS_ELSEWHERE
    assert read(body(sample)) is None
    with pytest.raises(BadRequest, match="objects of 200,001 keys together; at most 200,000 are taken where"):
        refused_by_the_reader(body({**sample, "one": 1}))
    rows_and_more = {"rows": [keys(500)] * 1_000, "text": "x" * 300_000}
    with pytest.raises(BadRequest, match="500,004 keys together"):
        refused_by_the_reader(body(rows_and_more))


def refused_by_the_reader(text: bytes) -> None:
    found = read(text)
    assert found is not None
    raise BadRequest(orjson.loads(found[0])["refused"])


@given(st.binary(max_size=40).map(lambda text: text.replace(b"x", b":")), st.integers(0, 5))
def test_a_rare_sign_is_counted_up_to_one_more_than_matters(text: bytes, most: int) -> None:
    assert count_rare(text, b":", most) == min(text.count(b":"), most + 1)
    assert count_rare(text + b":" * 9, b":", most) == most + 1
