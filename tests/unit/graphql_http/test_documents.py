import hashlib
from uuid import UUID

import pytest
from graphql import DocumentNode
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AppError
from app.graphql.documents import Document, DocumentCache, DocumentStore
from app.graphql.errors import ErrorMapper, IntrospectionDisabled
from app.graphql.limits import Limits
from tests.support.toy_schema import toy_schema

pytestmark = pytest.mark.unit
TENANTS = [UUID(int=number) for number in range(8)]
EMPTY = DocumentNode(definitions=())


def document(name, weight=10):
    return Document(str(name), EMPTY, (), introspects=False, operations={}, weight=weight)


def held(cache, tenant, names):
    return [name for name in names if cache.find(tenant, str(name))]


def test_what_one_tenant_sent_another_does_not_find():
    cache = DocumentCache()
    cache.keep(TENANTS[0], document("a"))
    assert cache.find(TENANTS[0], "a") is not None
    assert cache.find(TENANTS[1], "a") is None
    assert cache.shared("a") is cache.find(TENANTS[0], "a")


def test_a_tenant_that_sends_ten_thousand_documents_evicts_its_own_alone():
    cache = DocumentCache(share_chars=1000, total_chars=2000)
    for name in range(50):
        cache.keep(TENANTS[0], document(f"mine {name}"))
    for name in range(10_000):
        cache.keep(TENANTS[1], document(f"theirs {name}"))
    assert len(held(cache, TENANTS[0], [f"mine {name}" for name in range(50)])) == 50
    assert cache.held_by(TENANTS[1]) == 1000
    assert held(cache, TENANTS[1], ["theirs 9999", "theirs 9900", "theirs 9899"]) == ["theirs 9999", "theirs 9900"]


def test_the_least_recently_used_document_of_a_share_goes_first():
    cache = DocumentCache(share_chars=30)
    for name in "abc":
        cache.keep(TENANTS[0], document(name))
    cache.find(TENANTS[0], "a")
    cache.keep(TENANTS[0], document("d"))
    assert held(cache, TENANTS[0], "abcd") == ["a", "c", "d"]


def test_a_shared_value_stays_until_its_last_holder_lets_go():
    cache = DocumentCache(share_chars=20)
    for tenant in TENANTS[:2]:
        cache.keep(tenant, document("a"))
    for name in "bc":
        cache.keep(TENANTS[0], document(name))
    assert cache.find(TENANTS[0], "a") is None
    assert cache.shared("a") is not None
    for name in "bc":
        cache.keep(TENANTS[1], document(name))
    assert cache.shared("a") is None


def test_a_document_larger_than_a_share_is_not_kept():
    cache = DocumentCache(share_chars=20)
    cache.keep(TENANTS[0], document("a", 21))
    assert cache.find(TENANTS[0], "a") is None


def test_tenants_away_for_long_give_way_before_busy_ones():
    cache = DocumentCache(share_chars=100, total_chars=100, busy=2)
    for tenant in TENANTS[:3]:
        cache.keep(tenant, document(f"of {tenant.int}", 30))
    cache.find(TENANTS[0], "of 0")
    cache.keep(TENANTS[3], document("of 3", 30))
    assert [tenant.int for tenant in TENANTS[:4] if cache.find(tenant, f"of {tenant.int}")] == [0, 2, 3]


ACTIONS = st.lists(st.tuples(st.sampled_from(TENANTS[:4]), st.integers(0, 30), st.integers(1, 40)), max_size=120)


@given(actions=ACTIONS)
def test_a_tenant_that_holds_less_than_its_part_never_loses_a_document_to_another(actions):
    cache = DocumentCache(share_chars=100, total_chars=200, busy=4)
    kept = {tenant: {} for tenant in TENANTS[:4]}
    for tenant, name, weight in actions:
        before = {other: cache.held_by(other) for other in kept}
        cache.keep(tenant, document(f"{name}/{weight}", weight))
        kept[tenant][f"{name}/{weight}"] = weight
        for other in kept:
            assert other == tenant or cache.held_by(other) == before[other] or before[other] > 200 / 4
    for tenant, names in kept.items():
        assert cache.held_by(tenant) == sum(weight for name, weight in names.items() if cache.find(tenant, name)) <= 100
    assert sum(cache.held_by(tenant) for tenant in kept) <= 200


def store(**limits):
    cache = DocumentCache()
    mapper = ErrorMapper(suggestions=False)
    return DocumentStore(toy_schema()._schema, limits=Limits(**limits), mapper=mapper, cache=cache, suggestions=False)


def prepare(documents, text, tenant=TENANTS[0], *, may_introspect=False):
    return documents.prepare(tenant, text, sha(text), "request-1", may_introspect=may_introspect)


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_known_document_is_the_same_object_for_every_tenant_that_sent_it():
    documents = store()
    first = prepare(documents, "{add}")
    assert documents.find(TENANTS[0], sha("{add}")) is first
    assert documents.find(TENANTS[1], sha("{add}")) is None
    assert prepare(documents, "{add}", TENANTS[1]) is first


def test_a_refused_document_is_remembered_with_what_is_wrong():
    documents = store()
    first = prepare(documents, "{nothing}")
    assert [problem.code for problem in first.problems] == ["GRAPHQL_VALIDATION_FAILED"]
    assert documents.find(TENANTS[0], sha("{nothing}")) is first


def test_introspection_is_refused_before_validation_and_not_kept():
    documents = store()
    with pytest.raises(IntrospectionDisabled):
        prepare(documents, "{__schema{nothing}}")
    assert documents.find(TENANTS[0], sha("{__schema{nothing}}")) is None
    assert prepare(documents, "{__schema{types{name}}}", may_introspect=True).problems == ()
    with pytest.raises(IntrospectionDisabled):
        prepare(documents, "{__schema{types{name}}}", TENANTS[1])


def test_a_document_over_a_limit_is_never_validated(monkeypatch):
    import app.graphql.examining as module

    monkeypatch.setattr(module, "validate", lambda *_, **__: pytest.fail("validated"))
    found = prepare(store(fields=5), "{prediction{id id id id id id}}")
    assert [problem.code for problem in found.problems] == ["QUERY_TOO_COMPLEX"]


@given(text=st.text(st.sampled_from('{}()[]$:!@.|&=" \n\t,#abcfragmentonqueryadd0123é💥\ufeff\\'), max_size=60))
def test_any_text_is_either_a_document_or_says_what_is_wrong(text):
    documents = store()
    try:
        found = prepare(documents, text)
    except AppError:
        return
    assert found.problems or found.operations
