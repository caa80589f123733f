"""Whatever document about predictions is sent, with whatever variables: plans answer as graphql-core's executor does, byte for byte."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.prediction_documents import requests
from tests.support.two_ways import TwoWays

pytestmark = pytest.mark.unit


def test_both_ways_give_equal_answers_ask_the_same_and_log_the_same_and_most_documents_are_planned():
    ways = TwoWays()

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(requests())
    def answers_are_equal(request):
        planned, ordinary = ways.ask(request)
        assert planned == ordinary

    answers_are_equal()
    ways.close()
    ran_planned = ways.planned.ran - ways.planned.executed
    assert ways.ordinary.executed == ways.ordinary.ran == ways.planned.ran
    assert ran_planned > ways.planned.ran / 2
