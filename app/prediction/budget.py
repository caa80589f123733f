"""Who holds how much of the memory for models, and who must go so that another fits. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from app.registry.types import VersionRoute

MIB = 1024 * 1024
# Reckoned: a mapped graph's resident bytes are 2 to 4 times the graph's, most of them shared by all processes of the machine.
_OF_GRAPH, _BESIDE_GRAPH = 4, 128 * 1024
# Measured (`python -m tools.bench_memory`) over twelve kinds of estimators: what is a child's alone once it has loaded is 5 to 13 MiB
# and once to twice an artifact that is not compressed. A compressed one may be any number of times that, so the reckoning holds only
# until the child has loaded: then what it took is charged, with room for what its first answers add, which was 0.6 to 2.5 MiB.
_OF_ARTIFACT, _BESIDE_ARTIFACT = 2, 16 * MIB
_OF_ANSWERS = 4 * MIB
K = TypeVar("K")


def onnx_bytes(route: VersionRoute) -> int:
    """About what a version takes of this process's memory, served compiled."""
    return _OF_GRAPH * route.compiled_size_bytes + _BESIDE_GRAPH


def native_bytes(route: VersionRoute) -> int:
    """About what a version takes of the machine's memory, served by its own estimator, before that can be measured."""
    return native_bytes_of(route.size_bytes)


def native_bytes_of(artifact_bytes: int) -> int:
    """As `native_bytes`, of an artifact of this size."""
    return _OF_ARTIFACT * artifact_bytes + _BESIDE_ARTIFACT


def loaded_bytes(measured: int) -> int:
    """What a child is charged that took this much when it had loaded."""
    return measured + _OF_ANSWERS


class MemoryLedger(Generic[K]):
    """Accounts, least recently used first. Their sum is never above `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._held: OrderedDict[K, int] = OrderedDict()
        self.touch: Callable[[K], None] = self._held.move_to_end  # this key was used just now

    def __contains__(self, key: K) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[K]:
        """Least recently used first."""
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def take(self, key: K, size: int, needed: Container[K], may_go: Callable[[K], bool]) -> list[K] | None:
        """Books `size` for `key`, instead of what it held; returns who had to go, in order, or None, and nothing changed, for want of room.

        Those in `needed` go only for another of them, and only where the others together would not be enough: a version that merely
        somebody asks for never displaces one that an alias points at, and what an alias has just left is waited for rather than
        another alias's version closed. Who `may_go` not, stays.
        """
        over = self.used - self._held.get(key, 0) + size - self.limit
        going: list[K] = []
        for wanted in self._rounds(key, over, needed):
            for each, held in self._held.items():
                if over <= 0:
                    break
                if each != key and (each in needed) is wanted and may_go(each):
                    going.append(each)
                    over -= held
        if over > 0:
            return None
        for each in going:
            self.give_back(each)
        self.give_back(key)
        self._held[key] = size
        self.used += size
        return going

    def _rounds(self, key: K, over: int, needed: Container[K]) -> tuple[bool, ...]:
        """Whether the needed ones go in a round: none where there is room, which takes no look at all the others."""
        if over <= 0:
            return ()
        spare = sum(held for each, held in self._held.items() if each not in needed and each != key) if key in needed else 0
        return (False, True) if key in needed and over > spare else (False,)

    def give_back(self, key: K) -> None:
        """`key` holds nothing any more."""
        self.used -= self._held.pop(key, 0)
