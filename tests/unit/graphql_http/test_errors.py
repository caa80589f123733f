import re
from pathlib import Path

import pytest
import structlog
from graphql import GraphQLError

from app import errors as tree
from app.errors import AppError, InvalidFeatures, InvalidInput, ModelUnavailable, NotFound, Unauthenticated
from app.graphql import errors as graphql_errors
from app.graphql.errors import MASKED, ErrorCode, ErrorMapper, problem_of, unforeseen
from tests.support.asgi import post
from tests.support.toy_schema import SECRET, Toy

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[3]


def below(kind):
    return {kind}.union(*(below(child) for child in kind.__subclasses__()))


ALL_ERRORS = sorted((kind for kind in below(AppError) if kind.__module__.startswith("app.")), key=lambda kind: kind.__name__)


def test_every_error_of_the_tree_has_a_code_of_the_enum():
    assert len(ALL_ERRORS) >= 20
    assert {tree.NotPromotable, graphql_errors.IntrospectionDisabled} <= set(ALL_ERRORS)
    assert {kind.__name__: kind.code for kind in ALL_ERRORS if kind.code not in set(ErrorCode)} == {}


def test_the_codes_are_those_of_the_contract_in_its_order():
    contract = (ROOT / "tests" / "contract" / "contract.graphql").read_text()
    listed = re.search(r"enum ErrorCode \{(.*?)\}", contract, re.DOTALL).group(1).split()
    assert [code.value for code in ErrorCode] == listed


def test_every_code_has_its_entry_in_the_documentation_and_no_other():
    documented = re.findall(r"^### `([A-Z_]+)`\n(.+)", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert sorted(code for code, _ in documented) == sorted(ErrorCode)
    assert all(len(text) > 20 for _, text in documented)


@pytest.mark.parametrize("code", sorted({kind.code for kind in ALL_ERRORS if kind.retryable}))
def test_the_documentation_calls_a_retryable_code_retryable(code):
    entry = (ROOT / "docs" / "errors.md").read_text().split(f"### `{code}`\n")[1].split("###")[0]
    assert "Retryable" in entry
    assert "Not retryable" not in entry


def test_details_stand_beside_the_code_under_their_camel_case_names():
    problem = problem_of(ModelUnavailable("Not loaded.", retry_after_ms=250, model_version=3, nothing=None))
    assert problem.wire("request-7") == {
        "message": "Not loaded.",
        "extensions": {"retryAfterMs": 250, "modelVersion": 3, "code": "MODEL_UNAVAILABLE", "retryable": True, "requestId": "request-7"},
    }


def test_a_detail_never_replaces_the_code_or_the_request_id():
    wire = problem_of(NotFound("No.", code="FORGED", requestId="forged")).wire("request-7")
    assert wire["extensions"] == {"code": "NOT_FOUND", "retryable": False, "requestId": "request-7"}


def test_a_message_that_quotes_a_name_is_cut_short():
    mapper = ErrorMapper(suggestions=False)
    error = GraphQLError("x", original_error=InvalidInput("n" * 1_000_000), path=["predict"])
    assert len(mapper.execution(error, "r", {}).message) == 5_001


def test_an_error_that_never_succeeds_says_so_whatever_its_kind_mostly_does():
    assert problem_of(ModelUnavailable("Never.", retryable=False)).wire("request-7")["extensions"]["retryable"] is False


def test_the_reason_of_a_refused_token_is_not_told():
    assert SECRET not in str(problem_of(Unauthenticated(SECRET)).wire("request-7"))


def test_a_surprise_is_masked_and_logged_once_with_its_traceback_and_request_id():
    with structlog.testing.capture_logs() as logs:
        problem = unforeseen(RuntimeError(SECRET), "request-7", "execution")
    assert (problem.code, problem.message) == (ErrorCode.INTERNAL_SERVER_ERROR, MASKED)
    (entry,) = logs
    assert (entry["event"], entry["log_level"], entry["request_id"]) == ("unexpected_error", "error", "request-7")
    assert entry["exc_info"][1].args == (SECRET,)


def test_the_log_of_a_surprise_of_graphql_core_does_not_quote_the_document():
    with structlog.testing.capture_logs() as logs:
        unforeseen(GraphQLError("Cannot return null.", source=None), "request-7", "execution")
    assert logs[0]["exc_info"][1].args == ("Cannot return null.",)


async def test_one_exception_that_strikes_several_fields_is_logged_once():
    error = GraphQLError("x", path=["a"], original_error=ValueError(SECRET))
    other = GraphQLError("x", path=["b"], original_error=error.original_error)
    seen = {}
    mapper = ErrorMapper(suggestions=False)
    with structlog.testing.capture_logs() as logs:
        found = [mapper.execution(each, "request-7", seen) for each in (error, other)]
    assert [problem.path for problem in found] == [("a",), ("b",)]
    assert len(logs) == 1


@pytest.mark.parametrize("kind", ["secret", "core", "exit", "deep", "time"])
@pytest.mark.parametrize("field", ["fail", "failMust"])
async def test_a_planted_secret_never_reaches_the_caller(kind, field):
    answer = await post(Toy().endpoint, f'{{{field}(kind:"{kind}")}}')
    assert b"hunter2" not in answer.body
    assert answer.codes == ["INTERNAL_SERVER_ERROR"]
    assert answer.errors[0]["message"] == MASKED
    assert answer.errors[0]["path"] == [field]


async def test_a_planted_secret_in_a_scalar_a_child_field_or_the_gatekeeper_never_reaches_the_caller():
    toy = Toy()
    answers = [
        await post(toy.endpoint, 'query($v:FeatureRow!){predict(model:"m",features:$v){id}}', variables={"v": "explode"}),
        await post(toy.endpoint, '{predict(model:"m",features:"explode"){id}}'),
        await post(toy.endpoint, "{prediction{must}}"),
        await post(toy.endpoint, "{unsayable}"),
        await post(toy.endpoint, "{add}", headers={"authorization": "Bearer broken"}),
        await post(toy.endpoint, "{add}", headers={"authorization": "nothing"}),
    ]
    assert [answer.codes[0] for answer in answers] == [
        "BAD_USER_INPUT", "BAD_USER_INPUT", "INTERNAL_SERVER_ERROR", "INTERNAL_SERVER_ERROR", "INTERNAL_SERVER_ERROR", "UNAUTHENTICATED",
    ]  # fmt: skip
    assert all(b"hunter2" not in answer.body for answer in answers)


async def test_problems_blockers_and_waiting_times_are_told():
    toy = Toy()
    features = (await post(toy.endpoint, '{fail(kind:"features")}')).errors[0]["extensions"]
    blocked = (await post(toy.endpoint, '{fail(kind:"blocked")}')).errors[0]["extensions"]
    late = (await post(toy.endpoint, '{fail(kind:"late")}')).errors[0]["extensions"]
    assert features["problems"] == [{"name": "age", "problem": "MISSING", "expected": "NUMBER", "got": None}]
    assert (blocked["code"], blocked["blockers"][0]["code"]) == ("NOT_PROMOTABLE", "NOT_READY")
    assert (late["code"], late["retryable"], late["retryAfterMs"]) == ("DEADLINE_EXCEEDED", True, 250)
    assert InvalidFeatures.code == features["code"]


async def test_one_failed_alias_leaves_the_others():
    answer = await post(Toy().endpoint, '{good: add bad: fail(kind:"missing") worse: fail(kind:"secret")}')
    assert answer.status == 200
    assert answer.json["data"] == {"good": 3, "bad": None, "worse": None}
    assert [(error["path"], error["extensions"]["code"]) for error in answer.errors] == [
        (["bad"], "NOT_FOUND"),
        (["worse"], "INTERNAL_SERVER_ERROR"),
    ]


@pytest.mark.parametrize(("document", "variables"), [
    ("{ad}", None), ("{add(on:1)}", None), ("query($a:In){add(one:$a)}", None), ("{code(code:NOT_FOUN)}", None),
    ("query($c:ErrorCode){code(code:$c)}", {"c": "NOT_FOUN"}), ("{...on Predictio{id}}", None), ("{... F} fragment F on Prediction {labe}", None),
])  # fmt: skip
async def test_names_that_nobody_asked_about_are_suggested_in_development_only(document, variables):
    from app.graphql.http.options import EndpointOptions

    told = await post(Toy(options=EndpointOptions(development=True)).endpoint, document, variables=variables)
    hidden = await post(Toy().endpoint, document, variables=variables)
    assert b"Did you mean" in told.body
    assert b"Did you mean" not in hidden.body
    assert hidden.codes == told.codes


async def test_at_most_ten_errors_of_a_document_or_of_variables_are_told():
    document = "query(" + "".join(f"$v{i}:Int!" for i in range(20)) + "){" + "".join(f"f{i} " for i in range(15)) + "}"
    answer = await post(Toy().endpoint, document)
    assert answer.codes == ["GRAPHQL_VALIDATION_FAILED"] * 10
    names = [f"v{i}" for i in range(14)]
    document = "query(" + "".join(f"${name}:Int!" for name in names) + "){" + "".join(f"a{name}:add(one:${name})" for name in names) + "}"
    answer = await post(Toy().endpoint, document)
    assert answer.codes == ["BAD_USER_INPUT"] * 10


async def test_a_quoted_value_is_cut_short():
    answer = await post(Toy().endpoint, "query($v:Int!){add(one:$v)}", variables={"v": "x" * 100_000})
    assert answer.codes == ["BAD_USER_INPUT"]
    assert len(answer.body) < 1000
