"""The evaluator and the reference, which share no code: the same answers, down to the last unit."""

import re

import mmh3
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.experiments.flags.checking import problems_of
from app.experiments.flags.compiling import compile_document
from app.experiments.flags.constraints import flaws_of
from app.experiments.flags.document import OPERATORS, Choice, Constraint, Document, Flag, FlagsRefused, Parent, Strategy
from app.experiments.flags.engine import Engine, RawVariant, takes_pattern
from app.experiments.flags.reference import Reference, bucket
from app.experiments.flags.selftest import UNITS as TESTED_UNITS
from app.experiments.flags.selftest import self_test
from app.experiments.types import TargetingRule
from tests.unit.experiments.flags.making import NORDIC, UNITS, arm, experiment

pytestmark = pytest.mark.unit

NOON = "2026-05-01T12:00:00.000Z"
ATTRIBUTES = ({}, {"country": "NO"}, {"country": "DE", "appVersion": "3.10.0"}, {"appVersion": "3.2.0-rc.1", "age": "41", "plan": "Ærlig"})


def rollout(percent, group, *choices, constraints=()):
    return Strategy("flexibleRollout", tuple(constraints), tuple(Choice(name, weight) for name, weight in choices), percent, group_id=group)


def condition(attribute, operator, *values, inverted=False, case_insensitive=False):
    return Constraint(attribute, operator, values, inverted, case_insensitive)


LAYERED = [
    experiment("one", rollout=30.0, layer="l", slots=((0, 10_000), (40_000, 60_000)), targeting=[NORDIC]),
    experiment("two", rollout=25.0, layer="l", slots=((10_000, 35_000),), variants=(arm("b", 1, 7), arm("a", 2, 2), arm("c", 3, 1))),
    experiment("three", model="fraud", rollout=12.345, overrides=[(unit, "treatment") for unit in UNITS[:40]]),
]
DOCUMENTS = {
    "experiments of the service's own": compile_document(LAYERED, 7.5, 1),
    "a plain split": compile_document([experiment("plain", targeting=[TargetingRule("appVersion", "SEMVER_GT", ("3.2.0",))])], 0.0, 1),
    "strategies one after the other": Document(
        1,
        (
            Flag("a", strategies=(rollout(10, "g", ("x", 1), ("y", 3)), rollout(50, "g", ("z", 1)), rollout(20, "h"))),
            Flag("b", strategies=(rollout(0, "g"), rollout(33, "other", ("v1", 500), ("v2", 500)), rollout(100, "b"))),
            Flag("c", strategies=(rollout(50, None, ("w10", 10), ("w2", 990)),), choices=(Choice("own", 1), Choice("other", 1))),
        ),
    ),
    "parents": Document(
        1,
        (
            Flag("layer", strategies=(rollout(100, "layer", ("one", 450), ("two", 450), ("free", 100)),)),
            Flag("off", enabled=False, strategies=(rollout(100, "off"),)),
            Flag("half", strategies=(rollout(50, "half"),)),
            Flag("in-one", strategies=(rollout(80, "in-one", ("a", 1), ("b", 1)),), parents=(Parent("layer", choices=("one",)),)),
            Flag("in-two", choices=(Choice("a", 3), Choice("b", 1)), parents=(Parent("layer", choices=("two", "free")), Parent("half"))),
            Flag("while-off", strategies=(Strategy("default"),), parents=(Parent("off", enabled=False), Parent("half", enabled=False))),
            Flag("never", strategies=(Strategy("default"),), parents=(Parent("off"),)),
        ),
    ),
    "a flag's own variants": Document(
        1,
        (
            Flag("many", choices=tuple(Choice(f"v{number}", weight) for number, weight in enumerate((0, 1, 17, 982, 0)))),
            Flag("by-strategy", strategies=(rollout(30, "s"), Strategy("default")), choices=(Choice("z", 2), Choice("a", 1))),
            Flag("units", strategies=(Strategy("userWithId", user_ids=UNITS[:5_000:2]),), choices=(Choice("hand", 1),)),
            Flag("none", enabled=False, choices=(Choice("z", 2),)),
            Flag("bare"),
        ),
    ),
    "conditions": Document(
        1,
        (
            Flag("texts", strategies=(Strategy("default", (condition("plan", "STR_CONTAINS", "ÆR", case_insensitive=True),)),)),
            Flag(
                "numbers",
                strategies=(rollout(60, "n", constraints=(condition("age", "NUM_GTE", "41"), condition("age", "NUM_LT", "5e1"))),),
            ),
            Flag(
                "versions", strategies=(rollout(60, "v", ("x", 1), ("y", 1), constraints=(condition("appVersion", "SEMVER_LT", "3.2.0"),)),)
            ),
            Flag("times", strategies=(Strategy("default", (condition("currentTime", "DATE_AFTER", "2026-05-01T13:59:59+02:00"),)),)),
            Flag("not", strategies=(Strategy("default", (condition("country", "IN", "NO", inverted=True),)),)),
            Flag("absent", strategies=(Strategy("default", (condition("country", "NOT_IN", "NO"),)),)),
        ),
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_ten_thousand_units_are_decided_alike(name):
    document = DOCUMENTS[name]
    assert problems_of(document.flags) == []
    engine, reference = Engine(document), Reference(document)
    differences, on = 0, set()
    for number, unit in enumerate(UNITS[:10_000]):
        values = ATTRIBUTES[number % len(ATTRIBUTES)]
        context = orjson.dumps({"userId": unit, "currentTime": NOON, "properties": values})
        for flag in document.flags:
            answer = engine.ask(flag.name, context)
            differences += answer != reference.ask(flag.name, unit, {**values, "currentTime": NOON})
            on |= {flag.name} if answer.feature_enabled else set()
    assert differences == 0
    assert on == {flag.name for flag in document.flags} - {"off", "never", "none"}


def test_buckets_are_those_of_the_published_hash():
    """Known answers of MurmurHash3, 32 bits, of the reference implementation's verification."""
    assert mmh3.hash("", 1, signed=False) == 0x514E28B7
    assert mmh3.hash("Hello, world!", 0x9747B28C, signed=False) == 0x24884CBA
    assert bucket("AB12A", "122", 100) == 1 + mmh3.hash("AB12A:122", 0, signed=False) % 100


VALUES = {
    "IN": st.text(max_size=8), "NOT_IN": st.text(max_size=8), "STR_STARTS_WITH": st.text(max_size=4), "STR_ENDS_WITH": st.text(max_size=4),
    "STR_CONTAINS": st.text(max_size=2),
    "IN_CIDR": st.one_of(st.ip_addresses(network="10.0.0.0/24").map(str), st.sampled_from(["10.0.0.0/28", "10.0.0.77/25", "::/64", "nonsense"])),
    "REGEX": st.sampled_from(["^a+$", "[0-9]{2}", "b|c", "", r"\.", "x"]),
    **dict.fromkeys(
        ("NUM_EQ", "NUM_GT", "NUM_GTE", "NUM_LT", "NUM_LTE"),
        st.one_of(st.integers(-50, 50).map(str), st.floats(-9, 9).map(repr), st.sampled_from(["1.", ".5", "+3", "1e2", "inf", "nan", "1_0", " 1", ""])),
    ),
    **dict.fromkeys(
        ("SEMVER_EQ", "SEMVER_GT", "SEMVER_GTE", "SEMVER_LT", "SEMVER_LTE"),
        st.from_regex(r"\A[0-2]\.(0|1|10)\.[0-2](-(rc|1|rc\.1|rc\.11|a-b))?(\+b1)?\Z"),
    ),
    **dict.fromkeys(
        ("DATE_AFTER", "DATE_BEFORE"),
        st.from_regex(r"\A2026-0[1-3]-[0-2]\d+T1\d:00:0[0-3](\.00[0-3])?(Z|[+-]0[0-3]:00)\Z").filter(lambda text: len(text) <= 29),
    ),
}  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_every_operator_means_the_same_to_both(data):
    operator = data.draw(st.sampled_from(OPERATORS))
    values = (
        data.draw(st.lists(VALUES[operator], min_size=1, max_size=3))
        if operator[:2] in {"IN", "NO", "ST"}
        else [data.draw(VALUES[operator])]
    )
    tested = condition("it", operator, *values, inverted=data.draw(st.booleans()), case_insensitive=data.draw(st.booleans()))
    given_value = data.draw(st.one_of(st.none(), VALUES[operator], st.sampled_from(values)))
    if any(flaws_of(tested)):
        return
    context = {} if given_value is None else {"it": given_value}
    document = Document(1, (Flag("f", strategies=(Strategy("default", (tested,)),)),))
    answer = Engine(document).ask("f", orjson.dumps({"userId": "u", "properties": context}))
    assert answer == Reference(document).ask("f", "u", context)


NASTY = st.text(alphabet='"\\ab]) or[', max_size=12)


@settings(max_examples=400, deadline=None)
@given(values=st.lists(NASTY, min_size=1, max_size=4), group=NASTY, name=NASTY)
def test_no_text_reaches_the_rule_language_as_a_rule(values, group, name):
    """Whatever passes the checks is read as the text that it is, however much it looks like the evaluator's own language."""
    strategy = Strategy("flexibleRollout", (condition(name, "IN", *values),), rollout=100, group_id=group or None)
    document = Document(1, (Flag("f", strategies=(strategy,)),))
    if problems_of(document.flags):
        return
    engine = Engine(document)
    assert not engine.ask("f", orjson.dumps({"userId": "u", "properties": {name: "none of them"}})).feature_enabled
    assert not engine.ask("f", b'{"userId":"u"}').feature_enabled
    for value in values:
        assert engine.ask("f", orjson.dumps({"userId": "u", "properties": {name: value}})).feature_enabled


@pytest.mark.parametrize("pattern", ["a", "", "^v[0-9]+$", "(?i)no", r"\p{L}+", "a|b", '"', "(?x) a # rest", "[|]"])
def test_a_pattern_that_the_evaluator_compiles_is_taken(pattern):
    assert takes_pattern(pattern) is True


@pytest.mark.parametrize("pattern", ["(", ")(", "[a", "*", "a{", "(?=a)", r"(a)\1", "a\\", r"a\\", "(?P<n", r"\q"])
def test_a_pattern_that_the_evaluator_cannot_compile_is_not_taken(pattern):
    """Nor one that ends with a backslash, which would swallow the quote behind it."""
    assert takes_pattern(pattern) is False


def test_the_self_test_asks_two_hundred_fixed_units():
    assert len(set(TESTED_UNITS)) == 200


class Lying:
    """An engine that is wrong about few units."""

    def __init__(self, document, flag, wrong):
        self._engine, self._flag, self._wrong = Engine(document), flag, wrong

    def ask(self, flag, context):
        answer = self._engine.ask(flag, context)
        unit = orjson.loads(context)["userId"]
        return RawVariant("disabled", False, None, False) if flag == self._flag and bucket("lie", unit, 100) <= self._wrong else answer


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_engine_that_decides_otherwise_does_not_pass_the_self_test(name):
    document = DOCUMENTS[name]
    self_test(document, Engine(document), "clinic")
    parents = {parent.flag for flag in document.flags for parent in flag.parents}
    deciding = [flag.name for flag in document.flags if flag.name not in parents and flag.strategies and flag.strategies[0].choices]
    for flag in deciding:
        with pytest.raises(FlagsRefused, match=re.escape(f"Flag {flag!r} is not decided as it is written")):
            self_test(document, Lying(document, flag, 10), "clinic")


def test_a_document_that_the_evaluator_drops_is_refused_and_not_decided_by_nothing():
    with pytest.raises(FlagsRefused, match="Flag 'a' was not taken by the evaluator"):
        Engine(Document(1, (Flag("a", choices=(Choice("x", 2**40),)),)))


def test_an_unknown_flag_is_no_answer():
    assert Engine(Document(1, ())).ask("unheard-of", b'{"userId":"u"}') is None
