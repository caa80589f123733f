"""Each tenant's share of a flag server's document."""

import hashlib
import json

import pytest

from app.experiments.flags.document import FlagsRefused
from app.experiments.types import Variant
from app.experiments.unleash.sharing import experiment_key
from app.experiments.unleash.splitting import SplitDocument
from app.kernel.names import check_name
from tests.support.unleash_features import V1, V2, document, feature, on, strategy, variant, where

pytestmark = pytest.mark.unit


def split(*features, shared=False, **more):
    return SplitDocument.of(document(*features, **more), shared)


def share(*features, tenant="acme", **more):
    return split(*features, **more).of_tenant(tenant)


def test_a_tenant_gets_the_strategies_that_name_it_and_no_word_of_others():
    churn = feature(
        "model.churn", strategy(on("acme"), variants=[V1, V2]), strategy(on("globex", "acme"), where("country", "NO"), variants=[V2])
    )
    whole = split(churn)
    acme, globex = whole.of_tenant("acme"), whole.of_tenant("globex")
    assert [len(each.flags["churn"].flag.strategies) for each in (acme, globex)] == [2, 1]
    assert whole.of_tenant("umbrella").flags == {}
    assert whole.of_tenant("umbrella").document.flags == ()
    assert b"globex" not in acme.document.to_json()
    assert b"tenantId" not in acme.document.to_json()
    assert acme.problems == globex.problems == whole.problems == ()
    assert acme.revision == 7
    assert whole.of_tenant("acme") is acme


@pytest.mark.parametrize(
    ("constraint", "concerned"),
    [
        (on("acme", "globex"), True),
        (on("globex"), False),
        (on("ACME"), False),
        (on("acme", inverted=True), False),
        (on("globex", operator="NOT_IN"), True),
        (on("acme", operator="NOT_IN"), False),
        (on("ac", operator="STR_STARTS_WITH"), True),
        (on("AC", operator="STR_STARTS_WITH"), False),
        (on("AC", operator="STR_STARTS_WITH", caseInsensitive=True), True),
        (on("x", "me", operator="STR_ENDS_WITH"), True),
        (on("cm", operator="STR_CONTAINS"), True),
        ({"contextName": "tenantId", "operator": "NUM_GT", "value": "1"}, False),
        ({"contextName": "tenantId", "operator": "SEMVER_GT", "value": "1.0.0", "inverted": True}, True),
    ],
)
def test_conditions_on_the_tenant_are_evaluated_as_the_evaluator_would(constraint, concerned):
    from app.experiments.flags.context import context_of
    from app.experiments.flags.document import Document
    from app.experiments.flags.engine import Engine
    from app.experiments.flags.reading import read_features

    raw = feature("model.churn", strategy(constraint, variants=[V1]))
    assert bool(share(raw).flags) is concerned
    (flag,) = read_features([raw]).flags
    assert Engine(Document(1, (flag,))).ask("model.churn", context_of("acme", "u", None)).feature_enabled is concerned


@pytest.mark.parametrize(
    "constraint",
    [
        on("a.*", operator="REGEX"),
        on("acme", operator="LIKE"),
        on(),
        on("acme", inverted="yes"),
        {"contextName": "tenantId", "operator": "IN", "values": "acme"},
    ],
)
def test_a_condition_on_the_tenant_that_is_not_understood_counts_for_nobody_and_is_told(constraint):
    found = share(feature("model.churn", strategy(constraint, variants=[V1]), strategy(on("acme"), variants=[V2])))
    assert [choice.name for choice in found.flags["churn"].flag.strategies[0].choices] == ["v2"]
    assert len(found.problems) == 1
    assert found.problems[0].startswith("Flag 'model.churn': strategies[0] has a condition on tenantId")


def test_a_strategy_for_all_tenants_counts_only_where_flags_are_shared():
    churn = feature("model.churn", strategy(variants=[V1]), strategy(on("acme"), variants=[V2]))
    closed, shared = split(churn), split(churn, shared=True)
    assert closed.problems == (
        "Flag 'model.churn': strategies[0] has no condition on tenantId: it counts for nobody unless TURNOUT_UNLEASH_SHARED_FLAGS is on.",
    )
    assert shared.problems == ()
    assert len(closed.of_tenant("acme").flags["churn"].flag.strategies) == 1
    assert closed.of_tenant("globex").flags == {}
    assert len(shared.of_tenant("acme").flags["churn"].flag.strategies) == 2
    assert len(shared.of_tenant("globex").flags["churn"].flag.strategies) == 1


def test_a_flag_without_strategies_is_everybodys_only_where_flags_are_shared():
    churn = feature("model.churn", variants=[V1])
    assert share(churn).flags == {}
    assert split(churn).problems == (
        "Flag 'model.churn' has no strategy, which would be everybody: it counts for nobody unless TURNOUT_UNLEASH_SHARED_FLAGS is on.",
    )
    assert share(churn, shared=True).flags["churn"].running


def test_segments_are_put_in_their_place_before_tenants_are_looked_at():
    segments = [{"id": 3, "name": "pilots", "constraints": [on("acme"), where("country", "NO")]}]
    found = share(feature("model.churn", strategy(variants=[V1], segments=[3])), segments=segments)
    (constraint,) = found.flags["churn"].flag.strategies[0].constraints
    assert (constraint.attribute, constraint.values) == ("country", ("NO",))
    assert share(feature("model.churn", strategy(variants=[V1], segments=[3])), segments=segments, tenant="globex").flags == {}


def test_a_segment_that_is_missing_counts_for_nobody_and_is_told():
    whole = split(feature("model.churn", strategy(on("acme"), variants=[V1], segments=[9])))
    assert whole.of_tenant("acme").flags == {}
    assert whole.of_tenant("acme").problems == (
        "Flag 'model.churn': strategies[0] names the segment '9', which the document does not have.",
    )


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (strategy(on("acme"), rollout="33.5", variants=[V1]), "strategies[0].parameters.rollout is '33.5'"),
        (strategy(on("acme"), stickiness="random", variants=[V1]), "strategies[0].parameters.stickiness is 'random'"),
        (strategy(on("acme"), stickiness="sessionId", variants=[V1]), "strategies[0].parameters.stickiness is 'sessionId'"),
        (strategy(on("acme"), where("age", "x", operator="NUM_GT"), variants=[V1]), "strategies[0].constraints[0].value is 'x'"),
        (strategy(on("acme"), variants=[variant("v1", 0, {"version": 1})]), "strategies[0].variants has weights that add up to 0"),
        ({**strategy(on("acme"), variants=[V1]), "name": "mine"}, "strategies[0].name is 'mine'"),
        ("rubbish", "strategies[0] is no object"),
    ],
)
def test_a_strategy_with_a_flaw_is_told_and_leaves_the_others_alone(bad, said):
    whole = split(feature("model.churn", bad, strategy(on("acme", "globex"), variants=[V2])))
    acme = whole.of_tenant("acme")
    assert [choice.name for each in acme.flags["churn"].flag.strategies for choice in each.choices] == ["v2"]
    assert len(acme.problems) == 1
    assert acme.problems[0].startswith(f"Flag 'model.churn': {said}")
    assert (whole.of_tenant("globex").problems == ()) is isinstance(bad, dict)


def test_a_switched_off_strategy_does_not_count():
    assert share(feature("model.churn", strategy(on("acme"), variants=[V1], disabled=True))).flags == {}


def test_a_parent_comes_along_and_is_off_where_none_of_its_strategies_names_the_tenant():
    layer = feature("layer.x", strategy(on("acme"), group="layer.x", variants=[variant("one", 500, "{}"), variant("two", 500, "{}")]))
    churn = feature(
        "model.churn", strategy(on("acme", "globex"), variants=[V1]), dependencies=[{"feature": "layer.x", "variants": ["one"]}]
    )
    whole = split(layer, churn)
    acme, globex = whole.of_tenant("acme"), whole.of_tenant("globex")
    assert {flag.name: flag.enabled for flag in acme.document.flags} == {"layer.x": True, "model.churn": True}
    assert {flag.name: flag.enabled for flag in globex.document.flags} == {"model.churn": False}
    assert globex.problems == ("Flag 'model.churn': depends on 'layer.x', no strategy of which names this tenant: the flag is off.",)


@pytest.mark.parametrize(
    ("dependencies", "said"),
    [
        ([{"feature": "nowhere"}], "dependencies[0].feature is 'nowhere', which is not in the document"),
        ([{"feature": "child"}], "dependencies[0].feature is 'child', which has a parent of its own"),
        ([{"feature": 3}], "dependencies[0].feature is ''"),
    ],
)
def test_a_flag_whose_parent_cannot_count_is_off_and_that_is_told(dependencies, said):
    child = feature("child", strategy(on("acme"), group="child"), dependencies=[{"feature": "top"}])
    top = feature("top", strategy(on("acme"), group="top"))
    found = share(child, top, feature("model.churn", strategy(on("acme"), variants=[V1]), dependencies=dependencies))
    assert not found.flags["churn"].running
    assert found.problems[0].startswith(f"Flag 'model.churn': {said}")


def test_a_model_s_flag_may_be_another_s_parent_and_keeps_its_variants():
    one = feature("model.a", strategy(on("acme"), group="model.a", variants=[V1, V2]))
    two = feature(
        "model.b", strategy(on("acme"), group="model.b", variants=[V1]), dependencies=[{"feature": "model.a", "variants": ["v2"]}]
    )
    for features in ((one, two), (two, one)):
        found = share(*features)
        flags = {flag.name: flag for flag in found.document.flags}
        assert [choice.payload for choice in flags["model.a"].strategies[0].choices] == ["[0,0]", "[0,1]"]
        assert found.problems == ()


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("not json", "variant 'v1' has no payload of JSON"),
        ("[1]", "variant 'v1' has a payload that is no JSON object"),
        ({"version": 1, "alias": "x"}, "variant 'v1' has a payload that does not name exactly one"),
        ({}, "variant 'v1' has a payload that does not name exactly one"),
        ({"version": "1"}, "variant 'v1' has a payload whose version is '1'"),
        ({"version": 0}, "variant 'v1' has a payload whose version is '0'"),
        ({"version": True}, "variant 'v1' has a payload whose version is 'True'"),
        ({"alias": "Not A Name"}, "'Not A Name' is no alias name"),
        ({"version": 1, "control": "yes"}, "variant 'v1' has a payload that does not name exactly one"),
    ],
)
def test_a_payload_that_is_not_understood_is_told_and_names_no_version(payload, said):
    found = share(feature("model.churn", strategy(on("acme"), variants=[variant("v1", 500, payload), V2])))
    assert found.problems[0].startswith(f"Flag 'model.churn': {said}")
    flag = found.flags["churn"]
    assert not flag.targets[0, 0].understood
    assert [arm.name for arm in flag.variants] == ["v2"]


def test_arms_are_told_once_a_name_with_what_makes_figures_hard_to_read():
    other = [variant("v1", 500, {"version": 1}), variant("v2", 500, {"version": 3, "control": True})]
    found = share(
        feature(
            "model.churn",
            strategy(on("acme"), where("country", "NO"), variants=[V1, V2]),
            strategy(on("acme"), rollout="20", variants=other),
        )
    )
    flag = found.flags["churn"]
    assert flag.variants == (
        Variant("v1", 1, None, 900, control=True, shadow=False),
        Variant("v2", 2, None, 100, control=False, shadow=False),
    )
    assert flag.rollout == 100.0
    assert [problem.partition(": ")[2].split(":")[0] for problem in found.problems] == [
        "gives 'v1' different weights in its strategies",
        "uses the variant name 'v2' for different versions",
    ]


def test_flags_of_other_products_are_no_concern():
    whole = split(
        feature("new-checkout", strategy(variants=[variant("x", 1, "?")], rollout="abc")),
        feature("model.churn", strategy(on("acme"), variants=[V1])),
    )
    assert whole.problems == whole.of_tenant("acme").problems == ()
    assert [flag.name for flag in whole.of_tenant("acme").document.flags] == ["model.churn"]


def test_a_flag_whose_model_has_no_possible_name_is_told():
    assert (
        split(feature("model.Churn!", strategy(on("acme"), variants=[V1])))
        .problems[0]
        .startswith("Flag 'model.Churn!': 'Churn!' is no model name")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html>gateway</html>", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"features": []}', "meta.revisionId must be a whole number"),
        ('{"features": {}, "meta": {"revisionId": 1}}', "features must be a list"),
        ('{"features": [{"enabled": true}], "meta": {"revisionId": 1}}', "features must be objects with a name each"),
        ('{"features": [{"name": "a"}, {"name": "a"}], "meta": {"revisionId": 1}}', "features must have names of their own"),
        ('{"features": [], "segments": 1, "meta": {"revisionId": 1}}', "segments must be a list"),
        ('{"features": [], "meta": {"revisionId": true}}', "meta.revisionId must be a whole number"),
        ("\ud800", "is not JSON"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(text, said):
    with pytest.raises(FlagsRefused) as refused:
        SplitDocument.read(text, False)
    assert said in refused.value.message


def test_keys_of_experiments_fit_their_length_and_are_names():
    assert experiment_key("churn") == "unleash-churn"
    assert experiment_key("a" * 40) == "unleash-" + "a" * 40
    long = "a" * 30 + "-" + "b" * 17
    digest = hashlib.sha256(long.encode()).hexdigest()[:8]
    assert experiment_key(long) == f"unleash-{'a' * 30}-{digest}"
    for model in (long, "b" * 48, "a" * 31 + "-" + "c" * 16):
        assert len(check_name("experiment", experiment_key(model))) <= 48


def test_the_share_is_what_the_evaluator_reads():
    found = share(
        feature(
            "model.churn",
            strategy(on("acme"), where("country", "NO"), variants=[V1, V2]),
            variants=[variant("v3", 1000, {"alias": "next"})],
        )
    )
    raw = json.loads(found.document.to_json())
    assert [each["name"] for each in raw["features"]] == ["model.churn", "turnout:holds:0"]
    assert [each["payload"]["value"] for each in raw["features"][0]["strategies"][0]["variants"]] == ["[0,0]", "[0,1]"]
    assert raw["features"][0]["variants"][0]["payload"]["value"] == "[-1,0]"
