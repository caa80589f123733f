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
    from app.kernel.clock import Clock

_COUNTER_BITS = 22
_MAC_BYTES = 4
_V7 = 0x7 << 76
_VARIANT = 0b10 << 62


class IdMint:
    """Makes prediction ids for any tenant; one a process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._prefix = secrets.randbits(20) << _COUNTER_BITS
        self._counter = secrets.randbits(_COUNTER_BITS)

    def mint(self, id_key: bytes) -> UUID:
        """A new id under the tenant's id key (32 bytes, purpose "ids")."""
        self._counter = (self._counter + 1) & ((1 << _COUNTER_BITS) - 1)
        unique = self._prefix | self._counter
        head = (self._clock.time_ms() << 80) | _V7 | ((unique >> 30) << 64) | _VARIANT | ((unique & ((1 << 30) - 1)) << 32)
        return UUID(int=head | _mac(id_key, head))


def is_genuine(prediction_id: UUID, id_key: bytes) -> bool:
    """Whether this tenant's key made the id. Chance of a forgery: 2^-32 a try."""
    head = prediction_id.int & ~0xFFFFFFFF
    return prediction_id.version == 7 and _mac(id_key, head) == prediction_id.int & 0xFFFFFFFF


def minted_at_ms(prediction_id: UUID) -> int:
    """Milliseconds since the Unix epoch at which the id was made."""
    return prediction_id.int >> 80


def _mac(id_key: bytes, head: int) -> int:
    return int.from_bytes(blake2b(head.to_bytes(16), digest_size=_MAC_BYTES, key=id_key).digest())
