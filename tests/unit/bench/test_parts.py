"""The parts of one request are named by functions that exist."""

from __future__ import annotations

import inspect

import pytest

from tools.parts import PARTS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("owner", "name"), [place for places in PARTS.values() for place in places])
def test_a_part_of_a_request_is_a_function_of_today(owner: object, name: str) -> None:
    assert inspect.isroutine(inspect.getattr_static(owner, name))
