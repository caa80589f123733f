"""Requests that name a document in place of sending it, and callers who may run no other."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AppError, BadRequest
from app.graphql.http.body import from_body, from_query_string
from app.kernel.context import Role
from tests.support.asgi import call, post
from tests.support.toy_schema import Toy, ToyThrottle

pytestmark = pytest.mark.unit
ADD = "{add}"
SHOP = {"authorization": "Bearer shop"}
PREDICTOR = {"authorization": "Bearer clinic:PREDICTOR"}


def persisted(name):
    return {"persistedQuery": {"version": 1, "sha256Hash": name}}


def only_registered(text=ADD, name=None):
    toy = Toy()
    toy.documents.only = frozenset({Role.PREDICTOR})
    return toy, toy.documents.register("clinic", text, name)


@pytest.mark.parametrize("prefix", ["", "sha256:"])
async def test_a_registered_document_runs_by_its_id_though_nobody_sent_its_text(prefix):
    toy = Toy()
    sha = toy.documents.register("clinic", ADD)
    assert (await post(toy.endpoint, documentId=prefix + sha)).json == {"data": {"add": 3}}
    assert (await post(toy.endpoint, extensions=persisted(sha))).json == {"data": {"add": 3}}
    query = f"documentId={prefix}{sha}".encode()
    assert (await call(toy.endpoint, "GET", query=query)).json == {"data": {"add": 3}}


async def test_operation_and_variables_go_with_the_id():
    toy = Toy()
    toy.documents.register("clinic", "query A($one: Int){add(one: $one)} query B{code}", "both")
    answer = await post(toy.endpoint, documentId="both", operationName="A", variables={"one": 5})
    assert answer.json == {"data": {"add": 7}}


async def test_an_id_that_is_no_digest_is_taken_where_apollo_puts_it_too():
    toy = Toy()
    toy.documents.register("clinic", ADD, "GetAdd_v1")
    assert (await post(toy.endpoint, extensions=persisted("GetAdd_v1"))).json == {"data": {"add": 3}}


async def test_an_id_of_another_tenants_is_refused_in_the_words_for_one_that_nobody_has():
    toy = Toy()
    sha = toy.documents.register("clinic", ADD)
    words = []
    for name in (sha, "0" * 64):
        answer = await post(toy.endpoint, documentId=name, headers=SHOP)
        assert answer.codes == ["PERSISTED_QUERY_NOT_FOUND"]
        words.append(answer.errors[0]["message"].replace(name, "ID"))
    assert words[0] == words[1] == "No document is registered under the id 'ID': `turnout documents push` registers documents."


async def test_a_document_id_is_never_what_somebody_happened_to_send_before():
    toy = Toy()
    sha = toy.documents.register("shop", ADD)
    await post(toy.endpoint, ADD)
    assert (await post(toy.endpoint, documentId=sha)).codes == ["PERSISTED_QUERY_NOT_FOUND"]
    assert (await post(toy.endpoint, extensions=persisted(sha))).json == {"data": {"add": 3}}  # an automatic one may be


async def test_a_get_by_id_may_not_change_anything():
    toy = Toy()
    sha = toy.documents.register("clinic", "mutation{bump}")
    assert (await call(toy.endpoint, "GET", query=f"documentId={sha}".encode())).status == 405
    assert toy.events == []
    assert (await post(toy.endpoint, documentId=sha)).json == {"data": {"bump": 1}}


async def test_who_may_run_registered_documents_alone_is_told_what_to_do_about_any_other():
    toy, _ = only_registered()
    for answer in (
        await post(toy.endpoint, "{code}", headers=PREDICTOR),
        await post(toy.endpoint, extensions=persisted("0" * 64), headers=PREDICTOR),
        await call(toy.endpoint, "GET", query=b"query={code}", headers=PREDICTOR),
        await post(toy.endpoint, "{ this is no document", headers=PREDICTOR),
    ):
        assert answer.codes == ["PERSISTED_QUERY_NOT_SUPPORTED"]
        assert answer.errors[0]["message"] == (
            "With your roles only registered documents run, and this one is not registered. Register it with `turnout documents push`, "
            "then send its id as `documentId`, or its text unchanged."
        )


async def test_who_may_run_registered_documents_alone_may_send_their_id_or_their_text():
    toy, sha = only_registered()
    for body in ({"documentId": sha}, {"query": ADD}, {"extensions": persisted(sha)}, {"query": ADD, "extensions": persisted(sha)}):
        assert (await post(toy.endpoint, headers=PREDICTOR, **body)).json == {"data": {"add": 3}}
    assert (await post(toy.endpoint, "{ add }", headers=PREDICTOR)).codes == ["PERSISTED_QUERY_NOT_SUPPORTED"]  # not the same text


async def test_what_others_of_the_tenant_sent_before_is_not_registered_by_that():
    toy, _ = only_registered()
    assert (await post(toy.endpoint, "{code}")).json == {"data": {"code": "NOT_FOUND"}}
    assert (await post(toy.endpoint, "{code}", headers=PREDICTOR)).codes == ["PERSISTED_QUERY_NOT_SUPPORTED"]


async def test_a_registered_document_that_introspects_shows_the_schema_to_nobody_who_may_not_see_it():
    toy, sha = only_registered("{__schema{queryType{name}}}")
    assert (await post(toy.endpoint, documentId=sha, headers=PREDICTOR)).codes == ["INTROSPECTION_DISABLED"]


async def test_a_document_that_this_process_has_not_seen_costs_five_tokens_and_then_one():
    toy = Toy(throttle=ToyThrottle())
    sha = toy.documents.register("clinic", ADD)
    spent = []
    for _ in range(3):
        await post(toy.endpoint, documentId=sha)
        spent.append(toy.throttle.spent["clinic"])
    assert spent == [5, 6, 7]


def test_a_text_and_an_id_together_are_refused_for_nobody_could_say_which_counts():
    with pytest.raises(BadRequest, match="not both"):
        from_body(orjson.dumps({"query": ADD, "documentId": "0" * 64}))


@pytest.mark.parametrize("name", [1, True, [], {}])
def test_an_id_is_a_string(name):
    with pytest.raises(BadRequest, match="documentId"):
        from_body(orjson.dumps({"documentId": name}))


@given(name=st.text(max_size=200))
def test_any_id_is_looked_up_as_it_was_sent(name):
    try:
        found = from_body(orjson.dumps({"documentId": name}))
    except (AppError, orjson.JSONEncodeError):
        pytest.fail("refused")
    assert (found.text, found.document, found.registered) == (None, name, True)


def test_a_get_names_the_document_alike():
    assert from_query_string(b"documentId=sha256:ab&variables={}") == from_body(b'{"documentId":"sha256:ab","variables":{}}')
