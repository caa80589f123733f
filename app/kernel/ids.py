"""Prediction ids: UUIDv7 whose last 32 bits are a tenant-keyed MAC, so a forged or foreign id is known without a look-up.

Layout (RFC 9562 section 5.7): 48 bits milliseconds · version 7 · 12 bits · variant · 30 bits · 32 bits MAC.
The 42 bits between are a process prefix (20, random at start) and a counter (22): no two ids of one process are alike.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.kernel.clock import Clock

_PREFIX_BITS, _COUNTER_BITS = 20, 22
_MOST = (1 << _COUNTER_BITS) - 1
_HEAD_BYTES, _MAC_BYTES = 12, 4
_NO_MAC = bytes(_MAC_BYTES)  # in its place, where the MAC is reckoned
_V7 = 0x7 << 44  # in the head, as the variant
_VARIANT = 0b10 << 30


def _plain(data: bytes) -> UUID:
    return UUID(bytes=data)


class IdMint:
    """Makes prediction ids for any tenant; one a process. `made_of`: gives an id of its 16 bytes; a driver's own kind is made faster."""

    def __init__(self, clock: Clock, made_of: Callable[[bytes], UUID] = _plain) -> None:
        self._clock, self._made_of = clock, made_of
        prefix = secrets.randbits(_PREFIX_BITS)
        self._fixed = _V7 | (prefix >> 8 << 32) | _VARIANT | ((prefix & 0xFF) << _COUNTER_BITS)
        self._counter = secrets.randbits(_COUNTER_BITS)

    def mint(self, id_key: bytes) -> UUID:
        """A new id under the tenant's id key (32 bytes, purpose "ids")."""
        self._counter = counter = (self._counter + 1) & _MOST
        head = ((self._clock.time_ms() << 48) | self._fixed | counter).to_bytes(_HEAD_BYTES)
        return self._made_of(head + _mac(id_key, head))


def is_genuine(prediction_id: UUID, id_key: bytes) -> bool:
    """Whether this tenant's key made the id. Chance of a forgery: 2^-32 a try."""
    data = prediction_id.bytes
    return prediction_id.version == 7 and _mac(id_key, data[:_HEAD_BYTES]) == data[_HEAD_BYTES:]


def minted_at_ms(prediction_id: UUID) -> int:
    """Milliseconds since the Unix epoch at which the id was made."""
    return prediction_id.int >> 80


def _mac(id_key: bytes, head: bytes) -> bytes:
    return blake2b(head + _NO_MAC, digest_size=_MAC_BYTES, key=id_key).digest()
