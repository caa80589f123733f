"""Where a call's time goes, by part: functions of running objects are wrapped, and each part is told its own time without its parts'.

What a probe itself takes is measured beforehand and taken off: in its own part what lies between its two looks at the clock, in the part
around it the rest.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CALIBRATION = 20_000
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


@dataclass(frozen=True)
class Overhead:
    """Nanoseconds that one probe adds: `inside` to its own part, `outside` to the part around it."""

    inside: float
    outside: float

    @classmethod
    def measure(cls) -> Overhead:
        """The better of several rounds."""
        rounds = [_calibrated() for _ in range(7)]
        return cls(min(inside for inside, _ in rounds), min(outside for _, outside in rounds))

    def corrected_us(self, probes: Probes) -> dict[str, float]:
        """Microseconds by part, without the probes'."""
        return {
            part: (own - self.inside * probes.calls[part] - self.outside * probes.inner_calls[part]) / 1000
            for part, own in probes.own_ns.items()
        }


class _Nothing:
    def nothing(self) -> None: ...

    def loop(self) -> None:
        for _ in range(_CALIBRATION):
            self.nothing()


def _calibrated() -> tuple[float, float]:
    nothing = _Nothing()
    began = _now()
    nothing.loop()
    bare = (_now() - began) / _CALIBRATION
    with Probes() as probes:
        probes.watch("nothing", _Nothing, "nothing")
        probes.watch("loop", _Nothing, "loop")
        nothing.loop()
    return probes.own_ns["nothing"] / _CALIBRATION, probes.own_ns["loop"] / _CALIBRATION - bare
