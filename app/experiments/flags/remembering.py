"""Decisions made before: a unit gets the same one under the same flags, and to ask the evaluator again costs twenty times as much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.experiments.flags.document import CURRENT_TIME, DATE_OPERATORS

if TYPE_CHECKING:
    from app.experiments.flags.document import Document
    from app.experiments.types import Decision

_HALF = 10_000  # decisions, some 250 bytes each, of all tenants of a process


class Remembered:
    """At least as many decisions as `half`, at most twice as many; those that nobody asked for of late go first. Any thread may ask."""

    def __init__(self, half: int = _HALF) -> None:
        self._half = half
        self._young: dict[Any, Decision] = {}
        self._old: dict[Any, Decision] = {}

    def get(self, key: Any) -> Decision | None:
        """The decision that was put there, unless it is forgotten."""
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: Any, decision: Decision) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = decision


def lasts(document: Document) -> bool:
    """Whether what it decides follows from unit and attributes alone: conditions on the time make it another decision later."""
    return not any(
        constraint.operator in DATE_OPERATORS or constraint.attribute == CURRENT_TIME
        for flag in document.flags
        for strategy in flag.strategies
        for constraint in strategy.constraints
    )
