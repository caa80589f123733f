"""Whether another tenant's model can be told apart from none."""

from __future__ import annotations

import pytest

from tools.chaos.crossing import NOBODYS, THEIRS, Crossing, judged, read

pytestmark = pytest.mark.unit


def refused(name: str, took_s: float = 0.001, text: str = "There is no model ?.") -> Crossing:
    return Crossing(name, "NOT_FOUND", text, False, took_s)


def test_the_same_words_in_the_same_time_tell_nothing() -> None:
    assert len(THEIRS) == len(NOBODYS)
    assert judged([refused(name) for _ in range(10) for name in (THEIRS, NOBODYS)]) == (True, 1.0)
    assert judged([]) == (True, 1.0)


def test_other_words_or_an_answer_tell() -> None:
    assert judged([refused(THEIRS), refused(NOBODYS, text="?")])[0] is False
    assert judged([Crossing(THEIRS, "", "", True, 0.001)])[0] is False


def test_a_longer_wait_tells_where_there_are_enough_to_compare() -> None:
    few, enough = ([refused(name, 0.001 if name == THEIRS else 0.005) for _ in range(n) for name in (THEIRS, NOBODYS)] for n in (9, 10))
    assert judged(few) == (True, 1.0)
    assert judged(enough) == (True, 5.0)


def test_an_answer_is_read_without_the_name_that_was_asked_for() -> None:
    error = {"message": f"There is no model {THEIRS}.", "extensions": {"code": "NOT_FOUND"}}
    assert read(THEIRS, {"data": None, "errors": [error]}, 1.0) == refused(THEIRS, 1.0)
    assert read(THEIRS, {"data": {"predict": {"id": "x"}}}, 1.0).given
