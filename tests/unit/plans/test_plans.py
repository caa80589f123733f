import inspect
import tracemalloc

import numpy as np
import pytest
from graphql import parse, validate

from app.graphql.errors import ErrorMapper
from app.graphql.examining import Examiner
from app.graphql.limits import Limits
from app.graphql.plans.compiler import compile_plans
from app.graphql.schema import build_schema
from tests.support.prediction_documents import Request
from tests.support.two_ways import TwoWays, Way

pytestmark = pytest.mark.unit
SCHEMA = build_schema()._schema
APOLLO = """query Predict($features: FeatureRow!, $unit: ID) {
  predict(model: "plain", features: $features, unit: $unit) {
    id
    label
    probability
    __typename
  }
}"""


def sent(text, variables=None, operation_name=None):
    return Request(text, variables, operation_name, "application/graphql-response+json", get=False)


def plans(text):
    document = parse(text)
    assert validate(SCHEMA, document) == []
    return compile_plans(SCHEMA, document)


@pytest.fixture
def ways():
    ways = TwoWays()
    yield ways
    ways.close()


async def test_what_a_generated_client_sends_runs_by_a_plan():
    way = Way(plans=True)
    told = await way.ask(sent(APOLLO, {"features": {"a": 1}, "unit": "u1"}, "Predict"))
    assert (way.ran, way.executed) == (1, 0)
    assert told.answer.status == 200
    assert list(told.answer.json["data"]["predict"]) == ["id", "label", "probability", "__typename"]
    assert told.answer.json["data"]["predict"]["__typename"] == "Prediction"
    assert told.predicts == [True]


async def test_without_plans_everything_goes_through_the_executor():
    way = Way(plans=False)
    told = await way.ask(sent(APOLLO, {"features": {"a": 1}}))
    assert (way.ran, way.executed, told.answer.status) == (1, 1, 200)


@pytest.mark.parametrize(
    ("text", "planned"),
    [
        ("{__typename}", {None}),
        ('{predict(model: "m", features: [1]) {probabilities {label}}}', {None}),
        ('query A {predictBatch(model: "m", rows: [1]) {values}} query B {viewer {tenant}}', {"A"}),
        ('query A($r: [FeatureRow!]!) {predictBatch(model: "m", rows: $r) {id}} query B {__typename}', {"A", "B"}),
        ('{predict(model: "m", features: 1) {id} viewer {tenant}}', set()),
        ('query ($d: Durability) {predict(model: "m", features: {d: $d}) {id}}', set()),
        ("{__schema {queryType {name}}}", set()),
        ('mutation {updateModel(name: "m", input: {}) {name}}', set()),
    ],
)  # fmt: skip
def test_planned_are_queries_for_predictions_alone(text, planned):
    assert set(plans(text)[0]) == planned


def test_every_field_with_a_direct_function_gives_it_its_own_arguments():
    with_direct = {}
    for name, field in SCHEMA.query_type.fields.items():
        direct = field.extensions["strawberry-definition"].metadata.get("direct")
        if direct is not None:
            with_direct[name] = ["context", *field.args] == list(inspect.signature(direct).parameters)
    assert with_direct == {"predict": True, "predictBatch": True}


def test_nothing_is_asked_before_all_arguments_fit(ways):
    """`second` lacks its model, which graphql-core says of that field alone: `first` is asked once, not by both ways."""
    text = """query ($m: String = "plain") {
      first: predict(model: "plain", features: 1) {id} second: predict(model: $m, features: 2) {id}
    }"""
    planned, ordinary = ways.ask(sent(text, {"m": None}))
    assert planned == ordinary
    assert len(planned.asked) == 1
    assert planned.answer.json["data"]["second"] is None
    assert (ways.planned.ran, ways.planned.executed) == (1, 1)


@pytest.mark.parametrize(
    ("model", "code"), [("nobody", "NOT_FOUND"), ("surprise", "INTERNAL_SERVER_ERROR"), ("nan", "INTERNAL_SERVER_ERROR")]
)
def test_an_error_nulls_its_field_and_is_told_with_every_place_and_by_a_plan(ways, model, code):
    ask = f'a: predict(model: "{model}", features: 1)'
    planned, ordinary = ways.ask(sent(f"{{{ask} {{probability}} ...F}} fragment F on Query {{{ask} {{version}}}}"))
    assert planned == ordinary
    assert planned.answer.codes[0] == code
    assert ways.planned.executed == 0
    if model != "nan":
        assert planned.answer.errors[0]["path"] == ["a"]
        assert len(planned.answer.errors[0]["locations"]) == 2


ONE = ["id", "model", "version", "variant", "reason", "label", "probability", "probabilities {label probability}", "value", "degraded"]
MANY = ["id", "version", "reason", "rowCount", "classes", "labels", "probabilities", "values"]
MODELS = ["plain", "odd", "regressor", "odd", "hollow", "nan", "plain", "foreign", "surrogate", "nothing", "regressor", "error", "plain"]


@pytest.mark.parametrize(
    ("call", "asked"),
    [("predict(model: $m, features: $n)", each) for each in (*ONE, " ".join(ONE))]
    + [("predictBatch(model: $m, rows: [$n])", each) for each in (*MANY, " ".join(MANY))],
)
def test_one_plan_writes_whatever_comes_one_answer_after_the_other(ways, call, asked):
    text = f"query ($m: String!, $n: FeatureRow!) {{{call} {{{asked} __typename}}}}"
    for n, model in enumerate(MODELS * 2):
        planned, ordinary = ways.ask(sent(text, {"m": model, "n": n}))
        assert planned == ordinary
    assert ways.planned.executed == 0


def test_errors_come_in_the_order_in_which_they_happen(ways):
    text = '{a: predict(model: "late", features: 1) {id} b: predict(model: "nobody", features: 1) {id} c: predict(model: "limited", features: 1) {id}}'
    planned, ordinary = ways.ask(sent(text))
    assert planned == ordinary
    assert planned.answer.codes == ["RATE_LIMITED", "NOT_FOUND", "DEADLINE_EXCEEDED"]


def test_a_default_that_could_be_changed_is_made_anew_for_each_request(ways):
    (plan,) = plans('query ($f: FeatureRow = {a: [1]}) {predict(model: "m", features: $f) {id}}')[0].values()
    first, second = (plan.variables[0].default() for _ in range(2))
    assert first == second == {"a": [1]}
    assert first is not second


def test_rows_go_in_as_a_list_and_vectors_come_out_as_they_are(ways):
    text = 'query ($r: [FeatureRow!]) {predictBatch(model: "plain", rows: $r) {probabilities labels classes rowCount}}'
    planned, ordinary = ways.ask(sent(text, {"r": {"a": 1}}))
    assert planned == ordinary
    assert planned.asked == ["(RouteRequest(model='plain', unit=None, attributes=None, alias=None, version=None), [{'a': 1}], None)"]
    assert np.array(planned.answer.json["data"]["predictBatch"]["probabilities"]).ndim == 2


def test_a_document_whose_plans_would_outgrow_it_is_not_planned():
    fields = " ".join(f"x{number}: label" for number in range(60))
    conditions = " ".join(f"y{number}: label @include(if: $c{number})" for number in range(3))
    declared = ", ".join(f"$c{number}: Boolean!" for number in range(3))
    assert plans(f'query {{predict(model: "m", features: 1) {{{fields}}}}}')[1] == 61
    assert plans(f'query ({declared}) {{predict(model: "m", features: 1) {{{fields} {conditions}}}}}') == ({}, 0)
    four = 'query ($a: Boolean!, $b: Boolean!, $c: Boolean!, $d: Boolean!) {predict(model: "m", features: 1) {%s}}'
    assert plans(four % " ".join(f"{name}: id @skip(if: ${name})" for name in "abcd")) == ({}, 0)


def test_a_kept_document_weighs_what_its_plans_weigh():
    text = 'query ($a: Boolean!, $b: Boolean!) {predict(model: "m", features: 1) {id label value @skip(if: $a) version @skip(if: $b)}}'
    with_plans, without = (
        Examiner(SCHEMA, Limits(), ErrorMapper(suggestions=False), suggestions=False, plans=given).look_at(
            "d", text, "r", may_introspect=False
        )
        for given in (True, False)
    )
    fields = 2 + 5 + 4 + 4 + 3
    assert (with_plans.weight - without.weight, without.weight) == (3 * fields, len(text) + 200)
    document = parse(text)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [compile_plans(SCHEMA, document) for _ in range(10)]
        each = (tracemalloc.get_traced_memory()[0] - before) / 10
    finally:
        tracemalloc.stop()
    assert kept[0][1] == fields
    assert each / (3 * fields) <= 270  # bytes a character, as documents themselves
