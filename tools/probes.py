"""Where a call's time goes, by part: functions of running objects are wrapped, and each part is told its own time without its parts'.

What the probes themselves take is found by doing the same without them, and taken off.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_now = time.perf_counter_ns


@dataclass
class Probes:
    """A context manager: within it the places given to `watch` are watched. Of one thread; what is awaited must not change tasks."""

    own_ns: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    inner_calls: Counter[str] = field(default_factory=Counter)  # of probed functions, by the part that called them
    _stack: list[list[Any]] = field(default_factory=list)  # [part, ns of the parts within it]
    _places: list[tuple[Any, str, Any, Any]] = field(default_factory=list)

    def watch(self, part: str, owner: Any, name: str) -> None:
        """From now on calls of `owner.name` (a module's or a class's, plain or `async def`) count for `part`."""
        inner = inspect.getattr_static(owner, name)
        function = inner.__func__ if isinstance(inner, staticmethod | classmethod) else inner
        watched = self._awaited(part, function) if inspect.iscoroutinefunction(function) else self._called(part, function)
        put = type(inner)(watched) if isinstance(inner, staticmethod | classmethod) else watched
        self._places.append((owner, name, inner, put))
        setattr(owner, name, put)

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Within this nothing is watched but what somebody has kept."""
        for owner, name, inner, _ in self._places:
            setattr(owner, name, inner)
        try:
            yield
        finally:
            for owner, name, _, watched in self._places:
                setattr(owner, name, watched)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, inner, _ in reversed(self._places):
            setattr(owner, name, inner)
        self._places.clear()

    def clear(self) -> None:
        for counts in (self.own_ns, self.calls, self.inner_calls):
            counts.clear()

    def _called(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def probe(*args: Any, **kwargs: Any) -> Any:
            frame = self._enter(part)
            began = _now()
            try:
                return function(*args, **kwargs)
            finally:
                self._leave(frame, _now() - began)

        return probe

    def _awaited(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def probe(*args: Any, **kwargs: Any) -> Any:
            frame = self._enter(part)
            began = _now()
            try:
                return await function(*args, **kwargs)
            finally:
                self._leave(frame, _now() - began)

        return probe

    def _enter(self, part: str) -> list[Any]:
        frame = [part, 0]
        self._stack.append(frame)
        return frame

    def _leave(self, frame: list[Any], took: int) -> None:
        part, within = frame
        self._stack.pop()
        self.own_ns[part] += took - within
        self.calls[part] += 1
        if self._stack:
            self._stack[-1][1] += took
            self.inner_calls[self._stack[-1][0]] += 1


def without_probes(own: dict[str, float], calls: Mapping[str, int], inner: Mapping[str, int], whole: float) -> dict[str, float]:
    """The parts' own times as they are where nobody looks. `whole`: of the same work without probes, in the unit of `own`.

    What the parts took together beyond `whole` is the probes': each took as much, half of it within its part and half in the part around.
    """
    each = (sum(own.values()) - whole) / max(1.0, sum(calls.values()))
    return {part: took - each / 2 * (calls.get(part, 0) + inner.get(part, 0)) for part, took in own.items()}
