"""How an inspection that brought no report ended, and whose doing that was."""

from __future__ import annotations

from typing import Any

import pytest

from app.kernel.inspection import Undecided
from app.prediction.runtimes.host import _died, _too_long

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("used_s", "decided"), [(0.0, False), (29.9, False), (30.0, True), (60.0, True)])
def test_too_long_is_told_by_the_time_that_it_computed(used_s: float, decided: bool) -> None:
    fate = {"exit": -9, "killed": True, "cpu_s": used_s}
    if decided:
        assert _too_long(60.0, fate).failure == "The inspection took longer than 60 seconds and was stopped."
    else:
        with pytest.raises(Undecided, match=rf"^The inspection had {used_s:.1f} seconds of a processor within 60\.$"):
            _too_long(60.0, fate)


@pytest.mark.parametrize(
    ("fate", "why"),
    [
        ({"exit": -11}, r"it crashed (segmentation fault), perhaps for want of memory"),
        ({"exit": -24}, "it used up its processor time"),
        ({"exit": -9, "cpu_s": 61.0}, "killed from outside, probably for want of memory"),  # the kernel did, at the hard limit
        ({"exit": -9, "killed": True}, "it was stopped"),  # it had broken the protocol
        ({"exit": 0}, "it ended by itself (status 0)"),
    ],
)
def test_what_the_artifact_did_itself_is_final(fate: dict[str, Any], why: str) -> None:
    assert _died(61, fate).failure == f"The artifact's process died during the inspection: {why}."


def test_a_kill_from_outside_is_not_its_doing() -> None:
    with pytest.raises(Undecided, match="killed from outside"):
        _died(61, {"exit": -9, "killed": False, "cpu_s": 60.9})
