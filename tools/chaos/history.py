"""Decides, from what clients were told and what the log holds, whether anything was lost, doubled, made up or mixed up.

Pure: operations and rows in, a verdict out. Who recorded them, and what was broken meanwhile, is no matter here.
Source: the method of Jepsen: each operation ends as ok, failed or unknown, and only the history decides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Outcome(StrEnum):
    """How an operation ended, as its client saw it."""

    OK = "ok"  # answered: it must be in the log
    FAIL = "fail"  # refused, or never sent: it must not be
    UNKNOWN = "unknown"  # the connection broke after something was sent: it may be


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client was told of one prediction."""

    id: str
    version: int
    experiment: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One request for a prediction. `unit` is one tenant's alone; `key` is the model."""

    number: int
    tenant: str
    unit: str
    key: str
    outcome: Outcome
    answer: Answer | None = None  # where it is OK


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the log, its pseudonym translated back into the unit where that is known."""

    id: str
    tenant: str
    unit: str
    key: str
    version: int
    experiment: str | None = None
    variant: str | None = None
    flag_revision: int | None = None


@dataclass(slots=True)
class Verdict:
    """What is wrong, a sentence each; nothing anywhere is the only pass."""

    lost: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    ghost: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    split: list[str] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Lost, duplicate, ghost, foreign, split."""
        return len(self.lost), len(self.duplicate), len(self.ghost), len(self.foreign), len(self.split)

    @property
    def clean(self) -> bool:
        return not any(self.counts)

    def __str__(self) -> str:
        return " / ".join(map(str, self.counts))

    def examples(self, most: int = 3) -> str:
        """The first sentences of each kind, for people."""
        kinds = {"lost": self.lost, "duplicate": self.duplicate, "ghost": self.ghost, "foreign": self.foreign, "split": self.split}
        return "\n".join(f"{name}: {sentence}" for name, sentences in kinds.items() for sentence in sentences[:most])


def check(operations: Iterable[Operation], rows: Iterable[Row]) -> Verdict:
    """The verdict on a history after healing and draining: every row that belongs to the run, every operation that was tried.

    lost: answered and not in the log. duplicate: an id twice in the log. ghost: in the log, and no operation answered or unknown
    accounts for it. foreign: in the log of another tenant than the one that asked. split: one id with two different records, or one
    unit with two variants under one revision of the flags.
    """
    asked, logged = list(operations), list(rows)
    verdict = Verdict()
    told = _told(asked, verdict)
    by_id: defaultdict[str, list[Row]] = defaultdict(list)
    for row in logged:
        by_id[row.id].append(row)
    _lost(told, by_id, verdict)
    for same in by_id.values():
        if len(same) > 1:
            verdict.duplicate.append(f"{same[0].id} is {len(same)} times in the log")
            if any(row != same[0] for row in same):
                verdict.split.append(f"{same[0].id} stands for {len(set(same))} different records")
    _foreign(asked, told, logged, verdict)
    _ghosts(asked, told, by_id, verdict)
    _variants(logged, verdict)
    return verdict


def _told(asked: list[Operation], verdict: Verdict) -> dict[str, Operation]:
    """The answered operations by their ids; an id that was given to two is a split of its own."""
    told: dict[str, Operation] = {}
    for operation in asked:
        if operation.outcome is not Outcome.OK or operation.answer is None:
            continue
        if (first := told.setdefault(operation.answer.id, operation)) is not operation:
            verdict.split.append(f"{operation.answer.id} answered operations {first.number} and {operation.number}")
    return told


def _lost(told: Mapping[str, Operation], by_id: Mapping[str, list[Row]], verdict: Verdict) -> None:
    for number, operation in told.items():
        found = by_id.get(number)
        if not found:
            verdict.lost.append(f"{number} of {operation.tenant}, operation {operation.number}")
        elif not any(_same(operation, row) for row in found):
            verdict.split.append(f"{number}: the client was told {operation.answer}, the log says {found[0]}")


def _same(operation: Operation, row: Row) -> bool:
    answer = operation.answer
    assert answer is not None
    said = (operation.key, operation.unit, answer.version, answer.experiment, answer.variant)
    return said == (row.key, row.unit, row.version, row.experiment, row.variant)


def _foreign(asked: list[Operation], told: Mapping[str, Operation], logged: list[Row], verdict: Verdict) -> None:
    """A row of a known id by that id, any other by its unit: who asks for it is who may have it."""
    tenants_of: defaultdict[str, set[str]] = defaultdict(set)
    for operation in asked:
        tenants_of[operation.unit].add(operation.tenant)
    for row in logged:
        owners = {told[row.id].tenant} if row.id in told else tenants_of.get(row.unit)
        if owners and row.tenant not in owners:
            verdict.foreign.append(f"{row.id} of {', '.join(sorted(owners))} is in the log of {row.tenant}")


def _ghosts(asked: list[Operation], told: Mapping[str, Operation], by_id: Mapping[str, list[Row]], verdict: Verdict) -> None:
    """An unknown operation accounts for one row of its tenant, unit and model: no client ever learned the id."""
    unknown = Counter((o.tenant, o.unit, o.key) for o in asked if o.outcome is Outcome.UNKNOWN)
    for number, same in by_id.items():
        if number in told:
            continue
        row = same[0]
        if unknown[row.tenant, row.unit, row.key] > 0:
            unknown[row.tenant, row.unit, row.key] -= 1
        else:
            verdict.ghost.append(f"{number} of {row.tenant}, unit {row.unit}")


def _variants(logged: list[Row], verdict: Verdict) -> None:
    seen: dict[tuple[str, str, str, int | None], str] = {}
    for row in logged:
        if row.experiment is None or row.variant is None:
            continue
        unit = (row.tenant, row.experiment, row.unit, row.flag_revision)
        if (first := seen.setdefault(unit, row.variant)) != row.variant:
            verdict.split.append(f"unit {row.unit} of {row.tenant} had {first} and {row.variant} in {row.experiment}")
