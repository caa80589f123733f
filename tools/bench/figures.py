"""What a run found, as it is written to docs/performance.json and read for the report; and the arithmetic of its ratios."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TURNOUT, ECHO, STARLETTE = "turnout", "echo", "starlette"
GATHERING = "mlserver-gathering"  # the best of the others, set up to answer more at the cost of latency: told beside
BASELINES = {ECHO, STARLETTE}


@dataclass(frozen=True)
class Cell:
    """One measurement: one server, asked in one way. Latencies in milliseconds, memory in MiB, processor time in µs a request."""

    server: str
    variant: str  # of ours: how it was set; else empty
    model: str
    connections: int
    rows: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the server's processes
    beside_us: float  # of ours: PostgreSQL, the drain and the parent
    memory_mib: float
    beside_mib: float
    requests: int
    checked: int  # answers whose content was looked at
    refused: int  # of the measured ones
    bad: int
    server_busy: float  # share of one core, meanwhile
    generator_busy: float
    trouble: str = ""  # why there are no figures, or a sample of what was bad

    @property
    def measured(self) -> bool:
        return self.requests > 0


@dataclass
class Results:
    """One run. What was not measured is in `missing`, with the reason."""

    taken: str = ""
    seconds: float = 0.0
    taken_by_others: float = 0.0  # what other programs took of all cores meanwhile, 0 to 1
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # what is no cell: promotions, floor of a batch, workers

    def find(self, server: str, connections: int, rows: int = 1, model: str = "boosted", variant: str = "") -> Cell | None:
        """The first that was measured so; None where it was not, or nothing came back."""
        asked = (server, variant, model, connections, rows)
        found = ((cell.server, cell.variant, cell.model, cell.connections, cell.rows) == asked and cell.measured for cell in self.cells)
        return next((cell for cell, fits in zip(self.cells, found, strict=True) if fits), None)

    def best_model_server(self, connections: int, rows: int = 1, model: str = "boosted") -> Cell | None:
        """The model server that, set up as its guide says, answered the most; the floor and the hand-written route are none."""
        cells = (self.find(name, connections, rows, model) for name in self.others() if name not in {*BASELINES, GATHERING})
        return max((cell for cell in cells if cell is not None), key=lambda cell: cell.per_second, default=None)

    def others(self) -> list[str]:
        """Every other server, in the order of measuring."""
        return list(dict.fromkeys(cell.server for cell in self.cells if cell.server != TURNOUT))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """What `write` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return Results(**{**data, "cells": [Cell(**cell) for cell in data["cells"]]})


def ratio(one: Cell | None, other: Cell | None, of: str = "per_second") -> float | None:
    """How many times `other`'s figure `one` has; None where either is missing or `other` has none."""
    if one is None or other is None or not getattr(other, of):
        return None
    return float(getattr(one, of)) / float(getattr(other, of))


def drift(cells: Iterable[Cell]) -> float:
    """How far apart the same measurement was in one run: largest over smallest; 1.0 of a machine that holds still."""
    found = [cell.per_second for cell in cells if cell.measured]
    return max(found) / min(found) if found else 1.0


@dataclass(frozen=True)
class Aim:
    """One aim of the project and what became of it."""

    what: str
    aim: str
    found: str
    met: bool | None  # None: not measured


def aims(results: Results) -> list[Aim]:
    """One row, everything on, beside the floor and the best of the model servers, in this run: by turns where that was measured."""
    ours, alone = results.find(TURNOUT, 32), results.find(TURNOUT, 1)
    best = results.best_model_server(32)
    turns = results.notes.get("by_turns", {})
    per_second = turns.get("per_second", {})
    paced, batch, forest = results.notes.get("paced"), results.notes.get("batch"), results.find(TURNOUT, 32, model="forest")
    return [
        _at_least(
            "requests/s at 32 connections, times the best model server's",
            10,
            _median_or(per_second.get(turns.get("best")), ratio(ours, best)),
        ),
        _at_least(
            "the same, times MLServer's with requests gathered",
            10,
            _median_or(per_second.get(GATHERING), ratio(ours, results.find(GATHERING, 32))),
        ),
        _at_least(
            "requests/s at 32 connections, share of the bare echo's",
            0.2,
            _median_or(per_second.get(ECHO), ratio(ours, results.find(ECHO, 32))),
        ),
        _at_most(
            "p50 at one connection, times the bare echo's", 3, _median_or(turns.get("p50"), ratio(alone, results.find(ECHO, 1), "p50_ms"))
        ),
        _at_most("p99 in ms at 70 % of capacity, with promotions", 5, paced and paced["p99_ms"]),
        _at_most("p50 of 1,000 rows, times parsing them and calling the graph", 1.5, batch and batch["times"]),
        _at_least(
            "a forest of 100 trees, served natively, times the bare Starlette's",
            1,
            ratio(forest, results.find(STARLETTE, 32, model="forest")),
        ),
    ]


def _median_or(told: dict[str, float] | None, once: float | None) -> float | None:
    """Of the rounds, where there were any."""
    return told["median"] if told else once


def _at_least(what: str, aim: float, found: float | None) -> Aim:
    return Aim(what, f"at least {aim:g}", "not measured" if found is None else short(found), None if found is None else found >= aim)


def _at_most(what: str, aim: float, found: float | None) -> Aim:
    return Aim(what, f"at most {aim:g}", "not measured" if found is None else short(found), None if found is None else found <= aim)


def short(number: float) -> str:
    """Three digits that count, thousands apart: 0.214, 3.4, 12, 10,559."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}" if number >= 1 else f"{number:.3g}"
