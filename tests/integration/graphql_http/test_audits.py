from collections import Counter

import pytest

from app.graphql.http.options import EndpointOptions
from app.graphql.schema import build_schema
from tests.support.audits import run_audits
from tests.support.served import served
from tests.support.toy_schema import Toy, toy_schema

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("make", [toy_schema, build_schema])
def test_all_61_audits_of_graphql_over_http_are_ok(make):
    with served(Toy(options=EndpointOptions(development=True), schema=make()).endpoint) as port:
        audits = run_audits(f"http://127.0.0.1:{port}/graphql", "clinic")
    assert [audit for audit in audits if audit["status"] != "ok"] == []
    assert Counter(audit["name"].split()[0] for audit in audits) == {"MUST": 13, "SHOULD": 23, "MAY": 25}
