"""Which documents may be registered, what a process knows of them, and who may run nothing else."""

import hashlib
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigurationError, Conflict, InvalidInput, QuotaExceeded
from app.kernel.context import Role
from app.settings import Settings
from app.tenancy.documents.book import DocumentBook, DocumentPolicy
from app.tenancy.documents.rules import MOST_BYTES, MOST_DOCUMENTS, check_distinct, identified, known_id, news, shelf_of

pytestmark = pytest.mark.unit
CLINIC, SHOP = UUID(int=1), UUID(int=2)
TEXT = "{viewer{tenant}}"


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_an_id_that_is_left_out_is_the_sha256_of_the_text(text):
    document = identified(None, text)
    assert (document.id, document.sha256, document.text) == (sha(text), sha(text), text)
    assert identified(sha(text), text) == identified("sha256:" + sha(text).upper(), text) == document


@pytest.mark.parametrize("name", ["GetViewer", "0cc175b9c0f1b6a831c399e269772661", "x-app:GetViewer.v1", "a" * 128])
def test_an_id_in_another_form_is_kept_as_the_manifest_gives_it(name):
    document = identified(name, TEXT)
    assert (document.id, document.sha256) == (name, sha(TEXT))


@pytest.mark.parametrize("name", ["", "a b", "é", "a" * 129, "a/b", "a\n"])
def test_an_id_that_is_none_is_refused(name):
    with pytest.raises(InvalidInput, match="1 to 128 letters"):
        identified(name, TEXT)


def test_64_hexadecimal_digits_that_are_not_the_texts_are_refused_for_a_client_takes_them_for_that():
    with pytest.raises(InvalidInput, match=f"which is {sha(TEXT)}"):
        identified("0" * 64, TEXT)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_text_that_cannot_be_stored_is_refused(text):
    with pytest.raises(InvalidInput):
        identified("name", text)


@given(name=st.text())
def test_the_prefix_of_graphql_over_http_and_the_case_of_a_digest_make_no_difference_and_nothing_else_is_touched(name):
    digest = sha(name) if name.isascii() else sha("x")
    assert known_id("sha256:" + digest.upper()) == known_id(digest) == digest
    if len(name) < 64:
        assert known_id(name) == name


def test_what_is_there_already_is_no_news_and_another_text_under_its_id_is_a_conflict_unless_it_is_replaced():
    there = {"a": "{a}", "b": "{b}"}
    same, other, new = (identified(name, text) for name, text in (("a", "{a}"), ("b", "{c}"), ("d", "{d}")))
    assert news(there, check_distinct([same, new]), replace=False) == [new]
    with pytest.raises(Conflict, match="'b' is registered with another text"):
        news(there, check_distinct([same, other]), replace=False)
    assert news(there, check_distinct([same, other]), replace=True) == [other]


def test_an_id_that_stands_twice_has_one_text():
    twice = [identified("a", "{a}"), identified("a", "{a}")]
    assert list(check_distinct(twice)) == ["a"]
    with pytest.raises(InvalidInput, match="stands twice"):
        check_distinct([*twice, identified("a", "{b}")])


def test_a_thousand_documents_are_held_and_no_more():
    there = {str(number): "{a}" for number in range(MOST_DOCUMENTS - 1)}
    one, two = identified("one", "{a}"), identified("two", "{a}")
    assert news(there, check_distinct([one]), replace=False) == [one]
    with pytest.raises(QuotaExceeded, match="1,001 documents"):
        news(there, check_distinct([one, two]), replace=False)


def test_256_kib_are_held_and_no_more_counted_as_utf_8():
    fits, over = identified("a", "é" * (MOST_BYTES // 2)), identified("a", "é" * (MOST_BYTES // 2) + "a")
    assert news({}, check_distinct([fits]), replace=False) == [fits]
    with pytest.raises(QuotaExceeded, match="262,145 bytes"):
        news({}, check_distinct([over]), replace=False)
    assert news(
        {"a": "b" * MOST_BYTES}, check_distinct([identified("a", "c" * MOST_BYTES)]), replace=True
    )  # what is replaced counts no more


def test_a_document_is_found_by_its_id_and_by_the_sha256_of_its_text():
    book = DocumentBook()
    book.apply([CLINIC], {CLINIC: shelf_of([("md5", TEXT)])}, None)
    assert book.find(CLINIC, "md5") == book.find(CLINIC, sha(TEXT)) == book.find(CLINIC, "sha256:" + sha(TEXT))
    assert book.find(CLINIC, "md5").text == TEXT
    assert book.find(SHOP, "md5") is None


def test_a_tenants_own_document_goes_before_one_for_all_of_the_same_id():
    book = DocumentBook()
    book.apply([CLINIC], {CLINIC: shelf_of([("a", "{own}")])}, shelf_of([("a", "{all}"), ("b", "{all}")]))
    assert [book.find(tenant, name).text for tenant, name in ((CLINIC, "a"), (CLINIC, "b"), (SHOP, "a"))] == ["{own}", "{all}", "{all}"]


def test_what_is_gone_from_the_picture_is_gone_and_what_it_does_not_tell_of_stays():
    book = DocumentBook()
    book.apply([CLINIC, SHOP], {CLINIC: shelf_of([("a", "{a}")]), SHOP: shelf_of([("a", "{a}")])}, shelf_of([("b", "{b}")]))
    book.apply([CLINIC], {}, None)
    assert [book.find(CLINIC, "a"), book.find(CLINIC, "b") is None, book.find(SHOP, "a") is None] == [None, False, False]
    assert [book.has_own(CLINIC), book.has_own(SHOP)] == [False, True]
    book.apply([], {}, shelf_of([]))
    assert book.find(SHOP, "b") is None


def caller(*roles, tenant=CLINIC):
    return SimpleNamespace(roles=frozenset(roles), tenant_id=tenant)


def policy(only=None, *, development=False, own=(), for_all=()):
    book = DocumentBook()
    book.apply(own, {tenant: shelf_of([("a", "{a}")]) for tenant in own}, shelf_of([(name, "{a}") for name in for_all]))
    return DocumentPolicy(book, only, development=development)


def test_by_default_predictors_run_registered_documents_alone_in_production_once_their_tenant_has_any():
    found = policy(own=[CLINIC], for_all=["b"])
    assert found.alone(caller(Role.PREDICTOR))
    assert not found.alone(caller(Role.PREDICTOR, tenant=SHOP))  # one for all tenants must not shut out those that registered none
    assert not found.alone(caller(Role.READER))
    assert not policy(own=[CLINIC], development=True).alone(caller(Role.PREDICTOR))


def test_who_has_another_role_as_well_is_not_held_to_it():
    found = policy(own=[CLINIC])
    assert not found.alone(caller(Role.PREDICTOR, Role.READER))
    assert policy(frozenset({Role.PREDICTOR, Role.READER})).alone(caller(Role.PREDICTOR, Role.READER))
    assert not found.alone(caller())


def test_what_the_settings_name_holds_everywhere_and_always():
    found = policy(frozenset({Role.READER}), development=True)
    assert found.alone(caller(Role.READER))
    assert not found.alone(caller(Role.PREDICTOR))
    assert not policy(frozenset(), own=[CLINIC]).alone(caller(Role.PREDICTOR))


@pytest.mark.parametrize(
    ("text", "roles"),
    [("", None), ("[]", frozenset()), ('["PREDICTOR"]', {Role.PREDICTOR}), ('["READER", "PUBLISHER"]', {Role.READER, Role.PUBLISHER})],
)
def test_the_setting_is_a_list_of_roles(text, roles):
    assert Settings.from_env({"TURNOUT_DOCUMENTS_ONLY": text}).http.documents_only == roles


@pytest.mark.parametrize("text", ['["ADMIN"]', '["OPERATOR"]', '["predictor"]', '"PREDICTOR"', "PREDICTOR"])
def test_who_registers_cannot_be_held_to_it_and_a_bad_word_stops_the_start(text):
    with pytest.raises(ConfigurationError, match="TURNOUT_DOCUMENTS_ONLY"):
        Settings.from_env({"TURNOUT_DOCUMENTS_ONLY": text})
