"""A kept key gives what the library's HMAC gives."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.kernel.macs import KeptMac

pytestmark = pytest.mark.unit


@given(st.binary(max_size=200), st.lists(st.binary(max_size=300), max_size=4))
@example(b"k" * 64, [b""])
@example(b"k" * 65, [b"m"])
def test_each_message_has_the_mac_that_the_library_gives(key: bytes, messages: list[bytes]) -> None:
    mac = KeptMac(key)
    assert [mac(message) for message in messages] == [hmac.digest(key, message, "sha256") for message in messages]
