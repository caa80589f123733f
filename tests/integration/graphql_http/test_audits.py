from collections import Counter

import pytest

from app.graphql.http.options import EndpointOptions
from tests.support.audits import run_audits
from tests.support.served import served
from tests.support.toy_schema import Toy

pytestmark = pytest.mark.integration


def test_all_61_audits_of_graphql_over_http_are_ok():
    with served(Toy(options=EndpointOptions(development=True)).endpoint) as port:
        audits = run_audits(f"http://127.0.0.1:{port}/graphql", "clinic")
    assert [audit for audit in audits if audit["status"] != "ok"] == []
    assert Counter(audit["name"].split()[0] for audit in audits) == {"MUST": 13, "SHOULD": 23, "MAY": 25}
