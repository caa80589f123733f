"""Documents that would not mean what they say are refused, with a sentence that names the flag and the field."""

import copy
from dataclasses import replace

import orjson
import pytest

from app.experiments.flags.compiling import compile_document, rule_problems
from app.experiments.flags.document import OPERATORS, FlagsRefused
from app.experiments.flags.engine import Engine
from app.experiments.flags.reading import MOST_BYTES, read_document, read_features
from app.experiments.flags.selftest import self_test
from app.experiments.types import TargetingRule
from tests.unit.experiments.flags.making import CONTROL, TREATMENT, UNITS, arm, experiment, flags

pytestmark = pytest.mark.unit

GOOD = {
    "version": 2,
    "meta": {"revisionId": 41},
    "segments": [{"id": 3, "name": "pilot", "constraints": [{"contextName": "country", "operator": "IN", "values": ["NO"]}]}],
    "features": [
        {"name": "layer.a", "enabled": True, "strategies": [], "variants": [{"name": "x", "weight": 900}, {"name": "y", "weight": 100}]},
        {
            "name": "model.churn", "type": "release", "enabled": True, "project": "default", "stale": False,
            "strategies": [
                {
                    "name": "flexibleRollout",
                    "segments": [3],
                    "parameters": {"rollout": "50", "stickiness": "default", "groupId": "churn"},
                    "constraints": [{"contextName": "appVersion", "operator": "SEMVER_GT", "value": "3.1.0", "inverted": False}],
                    "variants": [
                        {"name": "v1", "weight": 500, "stickiness": "default", "payload": {"type": "json", "value": '{"version": 1}'}},
                        {"name": "v2", "weight": 500, "stickiness": "default", "payload": {"type": "json", "value": '{"version": 2}'}},
                    ],
                }
            ],
            "variants": None,
            "dependencies": [{"feature": "layer.a", "enabled": True, "variants": ["x"]}],
        },
    ],
}  # fmt: skip
STRATEGY = ("features", 1, "strategies", 0)
CONSTRAINT = (*STRATEGY, "constraints", 0)
PARAMETERS = (*STRATEGY, "parameters")
GONE = object()


def changed(path, value):
    document = copy.deepcopy(GOOD)
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def constraint(operator, value, name="plan"):
    many = {"values": value} if isinstance(value, list) else {"value": value}
    return changed(CONSTRAINT, {"contextName": name, "operator": operator, **many})


def parents(*features):
    return {**GOOD, "features": [*GOOD["features"], *features]}


def child(name, *of):
    return {"name": name, "enabled": True, "strategies": [], "dependencies": [{"feature": parent} for parent in of]}


CHURN = "Flag 'model.churn': "
AT = f"{CHURN}strategies[0]."
RUBBISH = [
    ("no JSON", b"<html>", "The document is not JSON"),
    ("ten megabytes", b"[" + b"0," * 5_000_000 + b"0]", f"The document has 10,000,003 bytes; at most {MOST_BYTES:,} are read."),
    ("a list", b"[]", "The document must be an object, not a list."),
    ("a number", b"3", "The document must be an object, not a whole number."),
    ("no features", changed(("features",), GONE), "The document: features is missing"),
    ("features that are an object", changed(("features",), {}), "The document: features must be a list, not an object."),
    ("no revision", changed(("meta",), GONE), "The document: meta.revisionId is missing"),
    ("a revision that is a text", changed(("meta", "revisionId"), "41"), "The document: meta.revisionId must be a whole number, not a text."),
    ("a feature that is a text", changed(("features", 1), "model.churn"), "Flag 'features[1]' must be an object, not a text."),
    ("a feature without a name", changed(("features", 1, "name"), GONE), "Flag 'features[1]': name is missing"),
    ("a name with quotes", changed(("features", 1, "name"), 'a" or true or "'), "name must be 1 to 200 letters"),
    ("two flags of one name", parents(GOOD["features"][0]), "Flag 'layer.a': name is the name of two flags"),
    ("enabled that is a text", changed(("features", 1, "enabled"), "true"), f"{CHURN}enabled must be true or false, not a text."),
    ("enabled that is missing", changed(("features", 1, "enabled"), GONE), f"{CHURN}enabled is missing"),
    ("strategies that are an object", changed(("features", 1, "strategies"), {}), f"{CHURN}strategies must be a list, not an object."),
    ("a strategy that is null", changed(STRATEGY, None), f"{CHURN}strategies[0] must be an object, not nothing."),
    ("a strategy of one's own", changed((*STRATEGY, "name"), "mine"), f"{AT}name is 'mine': it must be one of default, flexibleRollout"),
    ("a strategy of the past", changed((*STRATEGY, "name"), "gradualRolloutRandom"), f"{AT}name is 'gradualRolloutRandom'"),
    ("a rollout with a fraction", changed((*PARAMETERS, "rollout"), "33.5"), f"{AT}parameters.rollout is '33.5': it must be a whole percent"),
    ("a rollout of letters", changed((*PARAMETERS, "rollout"), "abc"), f"{AT}parameters.rollout is 'abc'"),
    ("a rollout above all", changed((*PARAMETERS, "rollout"), "150"), f"{AT}parameters.rollout is '150'"),
    ("a rollout below nothing", changed((*PARAMETERS, "rollout"), "-1"), f"{AT}parameters.rollout is '-1'"),
    ("a rollout that is a number", changed((*PARAMETERS, "rollout"), 50), f"{AT}parameters.rollout must be a text, not a whole number."),
    ("a rollout that is missing", changed((*PARAMETERS, "rollout"), GONE), f"{AT}parameters.rollout is missing"),
    ("a rollout with a space", changed((*PARAMETERS, "rollout"), " 50"), f"{AT}parameters.rollout is ' 50'"),
    ("random stickiness", changed((*PARAMETERS, "stickiness"), "random"), f"{AT}parameters.stickiness is 'random': it must be one of"),
    ("stickiness on an attribute", changed((*PARAMETERS, "stickiness"), "country"), f"{AT}parameters.stickiness is 'country'"),
    ("a group that ends its quotes", changed((*PARAMETERS, "groupId"), 'a" or 100% sticky on user_id or "'), f"{AT}parameters.groupId must"),
    ("parameters that are a list", changed(PARAMETERS, []), f"{AT}parameters must be an object, not a list."),
    ("an unknown segment", changed((*STRATEGY, "segments"), [4]), f"{AT}segments[0] is '4', which is no segment of the document"),
    ("a segment with a flaw", changed(("segments", 0, "constraints"), "no"), "The document: segments[0].constraints must be a list"),
    ("an unknown operator", constraint("LIKES", ["x"]), f"{AT}constraints[0].operator is 'LIKES': it must be one of {', '.join(OPERATORS)}."),
    ("no operator", constraint(None, ["x"]), f"{AT}constraints[0].operator is missing"),
    ("a constraint on nothing", constraint("IN", ["x"], ""), f"{AT}constraints[0].contextName is ''"),
    ("a name that ends its quotes", constraint("IN", ["x"], 'a"] in ["b"] or context["a'), f"{AT}constraints[0].contextName is"),
    ("a name that is never set", constraint("IN", ["x"], "remoteAddress"), f"{AT}constraints[0].contextName is 'remoteAddress', which no"),
    ("the clock as a text", constraint("IN", ["x"], "currentTime"), f"{AT}constraints[0].contextName is 'currentTime', which DATE_AFTER"),
    ("values that are numbers", constraint("IN", [1]), f"{AT}constraints[0].values[0] must be a text, not a whole number."),
    ("no values", constraint("IN", []), f"{AT}constraints[0].values has 0 entries"),
    ("a value that swallows its quote", constraint("STR_CONTAINS", ["a\\", "b"]), f"{AT}constraints[0].values[0] ends with a backslash"),
    ("a value with a line break", constraint("IN", ["a\nb"]), f"{AT}constraints[0].values[0] holds a control character"),
    ("no number", constraint("NUM_GTE", "ten"), f"{AT}constraints[0].value is 'ten': NUM_GTE takes a finite number"),
    ("a number and a rule", constraint("NUM_GTE", "5 or true"), f"{AT}constraints[0].value is '5 or true': NUM_GTE takes a finite number"),
    ("a number beyond numbers", constraint("NUM_EQ", "1e999"), f"{AT}constraints[0].value is '1e999'"),
    ("a missing number", constraint("NUM_EQ", None), f"{AT}constraints[0].value is missing: NUM_EQ takes exactly one value."),
    ("a version with a v", constraint("SEMVER_EQ", "v1.2.3"), f"{AT}constraints[0].value is 'v1.2.3': SEMVER_EQ takes a semantic version"),
    ("half a version", constraint("SEMVER_LT", "1.2"), f"{AT}constraints[0].value is '1.2'"),
    ("a version beyond numbers", constraint("SEMVER_LT", "1.2.99999999999999999999"), f"{AT}constraints[0].value is '1.2.9999"),
    ("a day without a time", constraint("DATE_AFTER", "2026-03-01"), f"{AT}constraints[0].value is '2026-03-01': DATE_AFTER takes a time"),
    ("a day that never comes", constraint("DATE_BEFORE", "2026-02-30T00:00:00Z"), f"{AT}constraints[0].value is '2026-02-30T00:00:00Z'"),
    ("an address that is none", constraint("IN_CIDR", ["10.0.0.0/33"]), f"{AT}constraints[0].values[0] is '10.0.0.0/33': IN_CIDR takes"),
    ("an open bracket", constraint("REGEX", "["), f"{AT}constraints[0].value is '[': REGEX takes a regular expression"),
    ("look-ahead", constraint("REGEX", "a(?=b)"), f"{AT}constraints[0].value is 'a(?=b)'"),
    ("a back reference", constraint("REGEX", r"(a)\1"), f"{AT}constraints[0].value is '(a)"),
    ("a pattern without end", constraint("REGEX", "a" * 257), f"{AT}constraints[0].value is 'aaaa"),
    ("a pattern that grows beyond bounds", constraint("REGEX", r"(\w{500}){500}"), f"{AT}constraints[0].value is '("),
    ("a negative weight", changed((*STRATEGY, "variants", 0, "weight"), -1), f"{AT}variants[0].weight is -1"),
    ("a weight with a fraction", changed((*STRATEGY, "variants", 0, "weight"), 0.5), f"{AT}variants[0].weight must be a whole number, not"),
    ("a weight that is true", changed((*STRATEGY, "variants", 0, "weight"), True), f"{AT}variants[0].weight must be a whole number, not true"),
    ("weights that are all nothing", changed((*STRATEGY, "variants"), [{"name": "a", "weight": 0}]), f"{AT}variants has weights that add up to 0"),
    ("weights beyond bounds", changed((*STRATEGY, "variants"), [{"name": "a", "weight": 2**31}]), f"{AT}variants has weights that add up to"),
    ("two variants of one name", changed((*STRATEGY, "variants"), [{"name": "a", "weight": 1}] * 2), f"{AT}variants names 'a' twice."),
    ("a variant without a name", changed((*STRATEGY, "variants", 0, "name"), ""), f"{AT}variants[0].name must have 1 to"),
    ("a payload that is a text", changed((*STRATEGY, "variants", 0, "payload"), "1"), f"{AT}variants[0].payload must be an object, not a text."),
    ("a payload without a value", changed((*STRATEGY, "variants", 0, "payload"), {"type": "json"}), f"{AT}variants[0].payload.value is missing"),
    ("overrides of a variant", changed(("features", 0, "variants", 0, "overrides"), [{"contextName": "userId", "values": ["u"]}]), "Flag 'layer.a': variants[0].overrides"),
    ("a parent that is not there", parents(child("model.x", "nobody")), "Flag 'model.x': dependencies[0].feature is 'nobody', which is not in"),
    ("a parent of a parent", parents(child("model.x", "model.churn")), "Flag 'model.x': dependencies[0].feature is 'model.churn', which has a"),
    ("its own parent", parents(child("model.x", "model.x")), "Flag 'model.x': dependencies[0].feature is 'model.x': the two depend on"),
    ("parents in a circle", parents(child("a", "b"), child("b", "a")), "Flag 'a': dependencies[0].feature is 'b': the two depend on each other."),
    ("a variant that the parent has not", changed(("features", 1, "dependencies", 0, "variants"), ["z"]), f"{CHURN}dependencies[0].variants names 'z'"),
    ("variants of a parent that is off", changed(("features", 1, "dependencies", 0, "enabled"), False), f"{CHURN}dependencies[0].variants names variants of"),
    ("two hundred strategies and one", changed(("features", 1, "strategies"), [{"name": "default"}] * 201), f"{CHURN}strategies has 201 entries"),
    ("a hundred constraints and one", changed((*STRATEGY, "constraints"), GOOD["segments"][0]["constraints"] * 101), f"{AT}constraints has 102 entries"),
]  # fmt: skip


def test_the_document_that_is_spoiled_below_is_a_good_one():
    document = read_document(orjson.dumps(GOOD))
    assert document.revision == 41
    assert [flag.name for flag in document.flags] == ["layer.a", "model.churn"]
    assert [each.attribute for each in document.flags[1].strategies[0].constraints] == ["appVersion", "country"]
    self_test(document, Engine(document), "clinic")


@pytest.mark.parametrize(("raw", "sentence"), [(raw, sentence) for _, raw, sentence in RUBBISH], ids=[name for name, _, _ in RUBBISH])
def test_rubbish_is_refused_by_a_sentence_that_names_flag_and_field(raw, sentence):
    with pytest.raises(FlagsRefused) as refused:
        read_document(raw if isinstance(raw, bytes) else orjson.dumps(raw))
    assert any(sentence in text for text in refused.value.details["problems"]), refused.value.details["problems"]
    assert len(refused.value.message) < 3_000


def test_there_are_fifty_kinds_of_rubbish():
    assert len({name for name, _, _ in RUBBISH}) >= 50


def test_a_flag_with_a_problem_takes_its_children_along_and_leaves_the_others():
    broken = {"name": "layer.b", "enabled": True, "strategies": [{"name": "flexibleRollout", "parameters": {"rollout": "33.5"}}]}
    read = read_features([*GOOD["features"], broken, child("model.x", "layer.b")], GOOD["segments"])
    assert [flag.name for flag in read.flags] == ["layer.a", "model.churn"]
    assert [problem.flag for problem in read.problems] == ["layer.b", "model.x"]


def test_a_rollout_without_a_group_is_no_parent_for_it_would_be_drawn_under_its_childs_name():
    above = {"name": "layer.b", "enabled": True, "strategies": [{"name": "flexibleRollout", "parameters": {"rollout": "50"}}]}
    assert read_features([above]).problems == ()
    assert "whose rollout has no groupId" in str(read_features([above, child("model.x", "layer.b")]).problems[0])


def test_a_variant_without_weight_beside_others_is_no_rubbish():
    """What a flag server sends once a team has given everybody the same variant."""
    read = read_document(changed((*STRATEGY, "variants", 0, "weight"), 0))
    assert [choice.weight for choice in read.flags[1].strategies[0].choices] == [0, 500]


@pytest.mark.parametrize("flag", [7, None, True, "model.x", [], {}, {"name": 3}, {"name": ["x"]}, {"name": {}, "strategies": 1}])
def test_whatever_stands_in_the_place_of_a_flag_is_a_problem_and_no_failure(flag):
    read = read_features([flag])
    assert read.flags == ()
    assert read.problems


OWN = [
    ("a rollout in finer steps", experiment(rollout=33.3333), "Flag 'experiment.ranking': rollout is 33.3333"),
    ("a rollout below a tenth", experiment(rollout=0.05), "rollout is 0.05: it must be 0, or 0.1 to 100"),
    ("a rollout above all", experiment(rollout=100.5), "rollout is 100.5"),
    ("a rollout that is no number", experiment(rollout=float("nan"), slots=()), "rollout is nan"),
    ("slots that are not the rollout", experiment(rollout=20.0, layer="l", slots=((0, 10_000),)), "slots hold 10,000 buckets"),
    ("slots beyond the layer", experiment(rollout=20.0, layer="l", slots=((90_000, 110_000),)), "slots holds [90000, 110000), which are no buckets"),
    ("shadows alone", experiment(variants=(arm("a", 1, shadow=True),)), "variants are all shadows"),
    ("two arms of one name", experiment(variants=(CONTROL, CONTROL)), "variants names 'control' twice."),
    ("a weight of nothing", experiment(variants=(CONTROL, arm("b", 2, 0))), "variants.b.weight is 0"),
    ("a negative weight", experiment(variants=(CONTROL, arm("b", 2, -5))), "variants.b.weight is -5"),
    ("a weight with a fraction", experiment(variants=(CONTROL, arm("b", 2, 0.5))), "variants.b.weight is 0.5"),
    ("an override of nobody's variant", experiment(overrides=[(UNITS[0], "zz")]), "overrides names 'zz'"),
    ("a unit overridden twice", experiment(overrides=[(UNITS[0], "control"), (UNITS[0], "treatment")]), "twice."),
    ("targeting of tenants", experiment(targeting=[TargetingRule("tenantId", "IN", ("x",))]), "targeting[0].attribute is 'tenantId', which is set"),
    ("targeting by the clock", experiment(targeting=[TargetingRule("currentTime", "DATE_AFTER", ("2026-01-01T00:00:00Z",))]), "attribute is 'currentTime'"),
    ("an unknown operator", experiment(targeting=[TargetingRule("plan", "LIKES", ("x",))]), "operator is 'LIKES': it must be one of IN, NOT_IN"),
    ("a bad version", experiment(targeting=[TargetingRule("plan", "SEMVER_GT", ("3",))]), "SEMVER_GT takes a semantic version"),
]  # fmt: skip


@pytest.mark.parametrize(("running", "sentence"), [(running, sentence) for _, running, sentence in OWN], ids=[name for name, _, _ in OWN])
def test_an_experiment_that_would_not_mean_what_it_says_is_refused(running, sentence):
    with pytest.raises(FlagsRefused) as refused:
        flags(running)
    assert sentence in refused.value.message


def test_experiments_that_are_in_each_others_way_are_refused():
    first = experiment("first", rollout=20.0, layer="l", slots=((0, 20_000),))
    second = replace(first, key="second", slots=((10_000, 30_000),))
    with pytest.raises(FlagsRefused, match=r"'experiment.second': slots holds \[10000, 30000\) of the layer 'l', which 'first' holds"):
        flags(first, second)
    for others in ((experiment("first"), experiment("second")), (first, experiment("second")), (first, replace(second, layer="m"))):
        with pytest.raises(FlagsRefused, match=r"'experiment.second': model is 'churn', as of 'first': they share no layer"):
            flags(*others)
    with pytest.raises(FlagsRefused, match="key is that of two experiments"):
        flags(first, replace(first, model="fraud"))


@pytest.mark.parametrize("holdout", [-1.0, 101.0, 0.0001, float("nan")])
def test_a_holdout_that_cannot_be_is_refused(holdout):
    with pytest.raises(FlagsRefused, match="Flag 'holdout': holdoutPercent is"):
        flags(experiment(), holdout=holdout)


def test_times_of_microseconds_are_put_as_the_evaluator_reads_them():
    rule = TargetingRule("since", "DATE_AFTER", ("2026-03-01T12:00:00.123456+02:00",))
    document = compile_document([experiment(targeting=[rule], variants=(CONTROL, TREATMENT))], 0.0, 1)
    assert document.flags[1].strategies[0].constraints[0].values == ("2026-03-01T10:00:00.123Z",)


@pytest.mark.parametrize(
    "rule",
    [
        TargetingRule("plan", "SEMVER_GT", ("1.2.3-01",)),
        TargetingRule('a"b', "IN", ("x",)),
        TargetingRule("plan", "IN", ("a\\",)),
        TargetingRule("since", "DATE_AFTER", ("0001-01-01T00:00:00+02:00",)),
        TargetingRule("tenantId", "IN", ("x",)),
        TargetingRule("plan", "NUM_GT", ()),
    ],
)
def test_a_rule_that_would_have_the_document_refused_can_be_known_beforehand(rule):
    assert rule_problems(rule)
    with pytest.raises(FlagsRefused):
        flags(experiment(targeting=[rule]))


def test_a_rule_that_can_be_known_to_be_good_is_taken():
    rule = TargetingRule("since", "DATE_AFTER", ("2026-03-01T12:00:00.123456+02:00",))
    assert rule_problems(rule) == []
    assert flags(experiment(targeting=[rule])).decide("churn", UNITS[0], {"since": "2026-03-02T00:00:00Z"}).variant
