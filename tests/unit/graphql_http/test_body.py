import hashlib
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AppError, BadRequest, InvalidInput
from app.graphql.http.body import Parameters, from_body, from_query_string
from app.graphql.http.strict_json import MAX_LIST, MAX_NESTING

pytestmark = pytest.mark.unit
ADD = hashlib.sha256(b"{add}").hexdigest()


def body(**members):
    return orjson.dumps({"query": "{add}", **members})


def test_absent_and_null_members_are_the_same():
    nothing = Parameters("{add}", ADD, None, None)
    assert from_body(body()) == nothing
    assert from_body(body(variables=None, operationName=None, extensions=None, documentId=None)) == nothing
    assert from_query_string(b"query=%7Badd%7D") == nothing


def test_unknown_members_are_ignored():
    assert from_body(body(id="1", onError="NULL")).text == "{add}"


def test_a_get_and_a_post_mean_the_same():
    posted = from_body(body(variables={"a": [1, "é"]}, operationName="A"))
    assert from_query_string(b'query={add}&operationName=A&variables={"a":[1,"%C3%A9"]}') == posted


@pytest.mark.parametrize("wrap", [lambda rows: {"rows": rows}, lambda rows: {"input": {"sample": rows}}])
def test_a_list_that_no_argument_takes_is_refused_before_it_is_coerced(wrap):
    assert from_body(body(variables=wrap([1] * MAX_LIST))).variables == wrap([1] * MAX_LIST)
    with pytest.raises(InvalidInput, match="lists of 20,001"):
        from_body(body(variables=wrap([1] * (MAX_LIST + 1))))


def test_lists_in_a_lists_objects_are_counted_together():
    columns = [{"name": str(i), "categories": ["a"] * 1_000} for i in range(100)]
    from_body(body(variables={"input": {"signature": columns}}))
    with pytest.raises(InvalidInput, match="lists of 101,000"):
        from_body(body(variables={"input": {"signature": [*columns, columns[0]]}}))


@pytest.mark.parametrize("inner", [[], {}])
def test_more_arrays_and_objects_than_any_batch_has_are_refused_without_a_walk_through_all(inner):
    from_body(body(variables={"m": {"data": [[1]] * 10_000}, "rows": [{"a": 1}] * 10_000}))
    with pytest.raises(BadRequest, match="100,000 arrays and objects"):
        from_body(body(variables={"row": {"a": [inner] * 100_001}}))
    began = time.process_time()
    many = body(variables={"row": {"a": [inner] * 2_000_000}})
    written = time.process_time() - began
    with pytest.raises(BadRequest, match="400,000 opening"):
        from_body(many)
    assert time.process_time() - began - written < 0.1


def test_of_a_name_that_stands_twice_the_last_value_counts():
    assert from_body(b'{"query":"{a}","query":"{add}"}').text == "{add}"


@pytest.mark.parametrize("text", ['{"query":"{add}"}'.encode("utf-16"), b'{"query":"{add} #\xff\xfe"}', b'{"query":"\xed\xa0\x80"}'])
def test_a_body_that_is_no_utf_8_is_told_so(text):
    with pytest.raises(BadRequest, match=r"^The body is not UTF-8, which JSON must be in\.$"):
        from_body(text)


def test_half_a_surrogate_pair_is_no_json():
    with pytest.raises(BadRequest, match=r"^The body is not JSON: "):
        from_body(b'{"query":"\\ud800"}')


@pytest.mark.parametrize(
    "make",
    [lambda n: "[" * n + "]" * n, lambda n: '{"a":' * n + "1" + "}" * n, lambda n: '[1,{"a":2,"b":' * (n // 2) + "[]" + "}]" * (n // 2)],
)
def test_nesting_is_bounded_however_it_is_made(make):
    fits = f'{{"query":"{{add}}","variables":{{"a":{make(MAX_NESTING - 4)}}}}}'
    assert from_body(fits.encode()).variables
    with pytest.raises(BadRequest, match="nests"):
        from_body(f'{{"query":"{{add}}","variables":{{"a":{make(MAX_NESTING + 2)}}}}}'.encode())


def test_many_brackets_side_by_side_are_no_nesting():
    rows = [[1.5] * 20] * 1000
    assert from_body(body(variables={"rows": rows, "text": "[" * 500})).variables["rows"] == rows


@given(data=st.binary(max_size=100) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_parameters_or_a_typed_refusal(data):
    for read in (from_body, from_query_string):
        try:
            found = read(data)
        except AppError as error:
            assert error.code in {"BAD_REQUEST", "PERSISTED_QUERY_NOT_SUPPORTED"}
        else:
            assert found.text is not None or found.document


@given(text=st.text(st.characters(codec="utf-8")))
def test_the_digest_is_of_the_text_that_was_sent(text):
    assert from_body(orjson.dumps({"query": text})).document == hashlib.sha256(text.encode()).hexdigest()
