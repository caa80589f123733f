"""Answers given again to the same input, for models whose owner wants that (`cacheSeconds`). In memory, one a process.

The key names the tenant, the very version (its number, its artifact and how it is served) and every value of the input, so an answer
is never another tenant's, another version's or a near-by row's. What is kept is the whole answer, whatever part of it was asked for.
A tenant that uses no more than its equal part of the room is never evicted for another one's sake: whoever holds most gives way.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from app.kernel.tensors import Scores

if TYPE_CHECKING:
    from uuid import UUID

    from numpy.typing import NDArray

    from app.kernel.clock import Clock
    from app.kernel.tensors import Batch
    from app.registry.types import VersionRoute

N = TypeVar("N", bound=np.generic)
_LARGEST_INPUT_BYTES = 64 * 1024  # hashing more costs more than a compiled model does, and hardly comes twice
_ENTRY_BYTES = 600  # key, entry and array headers of one answer, beside its numbers
_SHAPE = struct.Struct("<QQQ")
_TEXT = struct.Struct("<q")


@dataclass(slots=True)
class _Entry:
    scores: Scores
    stored_at: float
    bytes: int


@dataclass(slots=True)
class _Share:
    """One tenant's answers, least recently used first."""

    entries: OrderedDict[bytes, _Entry]
    bytes: int = 0


class PredictionCache:
    """At most `max_bytes` and `max_entries` of answers."""

    def __init__(self, max_bytes: int, max_entries: int, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._clock = clock
        self._shares: dict[UUID, _Share] = {}
        self._bytes = self._entries = 0

    @property
    def size_bytes(self) -> int:
        """What all answers take, about."""
        return self._bytes

    def __len__(self) -> int:
        return self._entries

    def get(self, tenant_id: UUID, key: bytes, seconds: int) -> Scores | None:
        """The answer, where it is not older than `seconds`: the model's setting as it is now, so lowering it works at once."""
        share = self._shares.get(tenant_id)
        entry = None if share is None else share.entries.get(key)
        if share is None or entry is None:
            return None
        if self._clock.monotonic() - entry.stored_at >= seconds:
            self._remove(tenant_id, share, key)
            return None
        share.entries.move_to_end(key)
        return entry.scores

    def put(self, tenant_id: UUID, key: bytes, scores: Scores) -> None:
        """Keeps a copy of the answer. One that would not fit is not kept."""
        kept = Scores(_copy(scores.labels), _copy(scores.probabilities), _copy(scores.values))
        size = _ENTRY_BYTES + sum(array.nbytes for array in (kept.labels, kept.probabilities, kept.values) if array is not None)
        if size > self._max_bytes or self._max_entries < 1:
            return
        share = self._shares.setdefault(tenant_id, _Share(OrderedDict()))
        if key in share.entries:
            self._remove(tenant_id, share, key)
            share = self._shares.setdefault(tenant_id, share)
        share.entries[key] = _Entry(kept, self._clock.monotonic(), size)
        share.bytes += size
        self._bytes += size
        self._entries += 1
        while self._bytes > self._max_bytes or self._entries > self._max_entries:
            self._evict()

    def _evict(self) -> None:
        """The tenant above its equal part by most loses its oldest answer: one at or below it never does."""
        tenant_id, share = max(self._shares.items(), key=lambda item: self._weight(item[1]))
        self._remove(tenant_id, share, next(iter(share.entries)))

    def _weight(self, share: _Share) -> float:
        """What counts is what is short: bytes, or entries."""
        return share.bytes if self._bytes > self._max_bytes else len(share.entries)

    def _remove(self, tenant_id: UUID, share: _Share, key: bytes) -> None:
        size = share.entries.pop(key).bytes
        share.bytes -= size
        self._bytes -= size
        self._entries -= 1
        if not share.entries:
            del self._shares[tenant_id]


def cache_key(route: VersionRoute, batch: Batch) -> bytes | None:
    """The name of this question to this version; None where the input is too large to be worth keeping.

    The signature is the version's, so the checked arrays say all that the model will see. Texts carry their length, and a missing one
    a length of its own: no two inputs share a name.
    """
    if batch.numbers.nbytes > _LARGEST_INPUT_BYTES:
        return None
    served = f"{route.model_id}/{route.number}/{route.artifact_digest}/{route.runtime}/{route.compiled_digest}/"
    digest = hashlib.sha256(served.encode())
    digest.update(_SHAPE.pack(batch.rows, batch.numbers.shape[1], len(batch.texts)))
    digest.update(batch.numbers.tobytes())
    room = _LARGEST_INPUT_BYTES - batch.numbers.nbytes
    for column in batch.texts:
        for text in column:
            data = b"" if text is None else text.encode("utf-8", "surrogatepass")
            room -= _TEXT.size + len(data)
            if room < 0:
                return None
            digest.update(_TEXT.pack(-1 if text is None else len(data)) + data)
    return digest.digest()


def _copy(array: NDArray[N] | None) -> NDArray[N] | None:
    """Read-only, for many will hold it; a copy, for a row's answer is often a view that would keep a whole batch in memory."""
    if array is None:
        return None
    copied = array.copy()
    copied.setflags(write=False)
    return copied
