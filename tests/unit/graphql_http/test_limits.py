import pytest
from graphql import parse
from hypothesis import given
from hypothesis import strategies as st

from app.graphql.limits import Counts, Limits, exceeded, measure

pytestmark = pytest.mark.unit


def of(text):
    return measure(parse(text)).operations[0]


@pytest.mark.parametrize(("text", "counts"), [
    ("{a}", Counts(1, 1, 1, 0, 0, 1)),
    ("{a b{c{d}}}", Counts(3, 2, 4, 0, 0, 2)),
    ("{x:a y:b{z:c}}", Counts(2, 2, 3, 3, 0, 2)),
    ("query @d {a @d @e ... @d {b}}", Counts(1, 2, 2, 0, 4, 2)),
    ("query($v:Int @d){a}", Counts(1, 1, 1, 0, 1, 1)),
    ("{... {... {a}}}", Counts(1, 1, 1, 0, 0, 1)),
    ("{...F ...F} fragment F on Q @d {a b{c}}", Counts(2, 4, 6, 0, 2, 4)),
    ("{a{...F}} fragment F on Q {b{...G}} fragment G on Q {x:c{d}}", Counts(4, 1, 4, 1, 0, 1)),
    ("{a{__typename b}}", Counts(2, 1, 2, 0, 0, 1)),
    ("{...Missing a}", Counts(1, 1, 1, 0, 0, 1)),
    ("{__schema{types{fields{args{type{ofType{name}}}}}}}", Counts(0, 1, 0, 0, 0, 1)),
    ('{a __type(name:"A"){...F x:name}} fragment F on T {ofType{ofType{y:name @d}}}', Counts(1, 2, 1, 2, 1, 2)),
])  # fmt: skip
def test_a_document_is_counted_with_its_fragments_written_out(text, counts):
    assert of(text) == counts


@pytest.mark.parametrize(("text", "cost"), [
    ("{predict}", 1), ("{a:predict b:predict}", 2), ("{__typename}", 1), ("{__typename a}", 1), ("{a{b c d}}", 1),
    ("{a ...F} fragment F on Q {b c}", 3), ("{a @skip(if:true) b}", 2), ("{... {a b} ... on Q {c}}", 3),
])  # fmt: skip
def test_each_field_at_the_root_costs_a_token_whether_it_is_left_out_or_not(text, cost):
    assert of(text).cost == cost


@pytest.mark.parametrize("text", ["{...F} fragment F on Q {...F a}", "{...F} fragment F on Q {...G a} fragment G on Q {...F b}"])
def test_a_cycle_of_fragments_ends(text):
    assert of(text).fields >= 1


@pytest.mark.parametrize(("text", "batches"), [
    ("{predictBatch}", True), ("{a:predictBatch b:predictBatch __typename}", True), ("{predictBatch predict}", False),
    ("{...F} fragment F on Q {predictBatch}", True), ("{predict}", False), ("{__typename}", False),
])  # fmt: skip
def test_an_operation_that_only_predicts_batches_is_known(text, batches):
    counts = of(text)
    assert (counts.batches == counts.charged > 0) is batches


@pytest.mark.parametrize(("text", "introspects"), [
    ("{a}", False), ("{__typename}", False), ("{__schema{types{name}}}", True),
        ("{a} fragment F on __Type {name}", True), ('{a ...F} fragment F on Q {x:__type(name:"A"){name}}', True),
])  # fmt: skip
def test_introspection_is_seen_wherever_it_hides(text, introspects):
    assert measure(parse(text)).introspects is introspects


LIMITS = Limits(depth=3, root_fields=3, fields=6, aliases=2, directives=2)


@pytest.mark.parametrize(("within", "beyond", "what"), [
    ("{a{b{c}}}", "{a{b{c{d}}}}", "levels of nested fields"),
    ("{a b c}", "{a b c d}", "fields at the root"),
    ("{a{b c d e f}}", "{a{b c d e f g}}", "fields"),
    ("{x:a y:b}", "{x:a y:b z:c}", "aliases"),
    ("{a @d @e}", "{a @d @e @f}", "directives"),
    ("{a} fragment F on Q {b c d e f g}", "{a} fragment F on Q {b c d e f g h}", "fields"),
    ("{a} query B {b}", "{a} query B {b c d e}", "fields at the root"),
])  # fmt: skip
def test_each_limit_is_the_last_size_that_passes(within, beyond, what):
    assert exceeded(measure(parse(within)), LIMITS) is None
    assert f" {what}," in exceeded(measure(parse(beyond)), LIMITS)


def doubling(count):
    return "{a{...f0}}" + "".join(f"fragment f{i} on Q{{...f{i + 1} ...f{i + 1}}}" for i in range(count)) + f"fragment f{count} on Q{{b}}"


def test_a_hundred_doubling_fragments_are_counted_in_a_number_of_steps_that_grows_as_the_document():
    steps = {count: measure(parse(doubling(count))).steps for count in (25, 50, 100)}
    assert steps[100] - steps[50] == 2 * (steps[50] - steps[25])  # linear: what 50 fragments add is twice what 25 add
    assert steps[100] < 1000
    assert measure(parse(doubling(100))).operations[0].fields == 1 + 2**100
    assert exceeded(measure(parse(doubling(100))), Limits()) is not None


def test_a_chain_of_fragments_deeper_than_the_interpreters_stack_is_counted():
    chain = "{...f0}" + "".join(f"fragment f{i} on Q{{a{{...f{i + 1}}}}}" for i in range(3000)) + "fragment f3000 on Q{b}"
    assert of(chain).depth == 3001


SELECTIONS = st.recursive(
    st.sampled_from(["a", "x:b", "c @d", "__typename"]),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda parts: "a{" + " ".join(parts) + "}"),
    max_leaves=15,
)


@given(inner=SELECTIONS, outer=SELECTIONS, times=st.integers(1, 3))
def test_a_fragment_counts_as_if_it_were_written_out(inner, outer, times):
    spread = of("{" + outer + " r{" + "...F " * times + "}} fragment F on Q {" + inner + "}")
    written = of("{" + outer + " r{" + (inner + " ") * times + "}}")
    assert spread == written
