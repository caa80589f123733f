"""One server at a time: started, warmed up and looked at, measured cell by cell, stopped."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tools.bench import models, processes, servers
from tools.bench.figures import Cell
from tools.bench.load import NoFiguresError, Sampler, Target

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from tools.bench.load import Load, Loader
    from tools.bench.processes import Cores
    from tools.bench.servers import Place, Server
    from tools.bench.turnout import Turnout

READY_PATIENCE_S = 90.0
CHECK_S = 1.0
Shape = tuple[str, int, int]  # model, connections, rows
EVERY_SHAPE: tuple[Shape, ...] = (
    *((models.BOOSTED, connections, rows) for rows in (1, 100, 1000) for connections in (1, 32, 128)),
    *((models.LINEAR, connections, 1) for connections in (1, 32, 128)),
    *((models.LINEAR, 32, rows) for rows in (100, 1000)),
)
QUICK_SHAPES: tuple[Shape, ...] = tuple((models.BOOSTED, connections, 1) for connections in (1, 32))


def say(text: str) -> None:
    print(text, flush=True)


class Observed(Protocol):
    """A running server, as processes."""

    def serving(self) -> list[int]: ...
    def beside(self) -> list[int]: ...
    def pin(self) -> None: ...


@dataclass(frozen=True)
class Bench:
    """What all measurements of a run share."""

    cores: Cores
    loader: Loader
    seconds: float
    folder: Path
    models: Path

    def seconds_for(self, rows: int, connections: int) -> float:
        """Large batches from many connections take a slow server seconds each: it is given time for some of them."""
        return self.seconds * (1 if rows < 1000 or connections == 1 else 2)

    def measure(self, server: str, observed: Observed, target: Target, shape: Shape, variant: str = "") -> Cell:
        """Answers looked at first, by all connections; then the measured run, with one client beside it that looks at some more."""
        model, connections, rows = shape
        seconds = self.seconds_for(rows, connections)
        observed.pin()
        warm = self._looked_at(target, connections if rows < 1000 else 1)
        try:
            watch = _Watch(observed)
            with Sampler(target) as sampler:
                load = self.loader.run(target, connections, seconds)
        except NoFiguresError as error:
            say(f"  {server:10} {variant:14} {model:8} {connections:4} connections {rows:5} rows  {error}")
            return _empty(server, variant, shape, str(error))
        checked, wrong, sample = warm
        bad, trouble = wrong + load.bad + sampler.wrong, sample or load.sample or sampler.sample
        cell = watch.cell(
            server, variant, shape, load, checked=checked + sampler.asked, bad=bad, trouble=trouble if bad or load.refused else ""
        )
        say(describe(cell))
        return cell

    def _looked_at(self, target: Target, connections: int) -> tuple[int, int, str]:
        """How many answers there were, how many of them wrong, and one of these; a slow server may have given none.

        The generator goes while requests are under way, which a server works off all the same: one more request, answered after them,
        keeps them out of what is measured next.
        """
        try:
            load = self.loader.checked(target, connections, CHECK_S)
            return load.requests, load.bad, load.sample
        except NoFiguresError:
            return 0, 0, ""
        finally:
            with contextlib.suppress(OSError):
                target.ask(target.bodies[0])


class _Watch:
    """Processor time of a server's processes from here on."""

    def __init__(self, observed: Observed) -> None:
        self._observed, self._began = observed, time.perf_counter()
        self._before = (processes.cpu_s(observed.serving()), processes.cpu_s(observed.beside()))

    def cell(self, server: str, variant: str, shape: Shape, load: Load, *, checked: int, bad: int, trouble: str) -> Cell:
        took, serving, beside = time.perf_counter() - self._began, self._observed.serving(), self._observed.beside()
        busy, busy_beside = processes.cpu_s(serving) - self._before[0], processes.cpu_s(beside) - self._before[1]
        model, connections, rows = shape
        return Cell(
            server=server,
            variant=variant,
            model=model,
            connections=connections,
            rows=rows,
            per_second=round(load.per_second, 2),
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            cpu_us=round(1e6 * busy / load.requests, 1),
            beside_us=round(1e6 * busy_beside / load.requests, 1),
            memory_mib=round(processes.memory_mib(serving), 1),
            beside_mib=round(processes.memory_mib(beside), 1),
            requests=load.requests,
            refused=load.refused,
            checked=checked,
            bad=bad,
            server_busy=round(busy / took, 3),
            generator_busy=round(load.generator_cpu_s / took, 3),
            trouble=trouble,
        )


def _empty(server: str, variant: str, shape: Shape, trouble: str) -> Cell:
    model, connections, rows = shape
    return Cell(server, variant, model, connections, rows, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, trouble)


def describe(cell: Cell) -> str:
    """One line of progress."""
    troubled = cell.bad or cell.refused
    trouble = f"   {cell.bad} BAD, {cell.refused} refused of {cell.requests}: {cell.trouble[:160]}" if troubled else ""
    cost = f"{cell.cpu_us:8.0f} + {cell.beside_us:5.0f} µs   {cell.memory_mib:5.0f} MiB"
    return (
        f"  {cell.server:10} {cell.variant:14} {cell.model:8} {cell.connections:4} connections {cell.rows:5} rows {cell.per_second:9.0f}/s"
        f"   p50 {cell.p50_ms:8.2f} ms   p99 {cell.p99_ms:8.2f} ms   {cost}"
        f"   busy {cell.server_busy:.0%}, generator {cell.generator_busy:.0%}{trouble}"
    )


class Running:
    """Another server's process tree."""

    def __init__(self, process: subprocess.Popen[bytes], cores: Cores) -> None:
        self._process, self._cores = process, cores

    def serving(self) -> list[int]:
        return [found.pid for found in processes.tree(self._process.pid)]

    def beside(self) -> list[int]:
        return []

    def pin(self) -> None:
        processes.pin(self.serving(), self._cores.server)


@contextlib.contextmanager
def started(server: Server, bench: Bench, model: str) -> Iterator[tuple[Running, Place]]:
    """The server, asked until it answers as it should; raises NoFiguresError with the end of its log where it does not."""
    folder = Path(tempfile.mkdtemp(prefix=f"{server.name}-{model}-", dir=bench.folder))
    place = servers.Place(folder, bench.models, _free_port())
    command = server.command(place, model)
    process = processes.start(command, bench.cores.server, place.environment(server.bin), folder / "log", folder)
    try:
        _wait_until_ready(process, target_of(server, place, model, 1), folder / "log")
        yield Running(process, bench.cores), place
    finally:
        processes.stop(process)


def target_of(server: Server, place: Place, model: str, rows: int) -> Target:
    return Target(
        place.port, server.path(model), servers.JSON_HEADERS, servers.bodies(lambda given: server.body(model, given), rows), server.expected
    )


def measure_other(server: Server, bench: Bench, shapes: Sequence[Shape], variant: str = "") -> list[Cell]:
    """All cells of one server; one that serves one model a process is started for each."""
    names = list(dict.fromkeys(model for model, _, _ in shapes))
    cells = []
    for group in [[name] for name in names] if server.one_model else [names]:
        with started(server, bench, group[0]) as (running, place):
            asked = [shape for shape in shapes if shape[0] in group and (shape[2] == 1 or not server.one_row_alone)]
            cells += [bench.measure(server.name, running, target_of(server, place, shape[0], shape[2]), shape, variant) for shape in asked]
    return cells


def measure_turnout(turnout: Turnout, bench: Bench, shapes: Sequence[Shape], variant: str = "") -> list[Cell]:
    cells = []
    for shape in shapes:
        model, _, rows = shape
        target = turnout.one(model) if rows == 1 else turnout.many(model, rows)
        turnout.drained()
        cells.append(bench.measure("turnout", turnout, target, shape, variant))
    return cells


def _wait_until_ready(process: subprocess.Popen[bytes], target: Target, log: Path) -> None:
    until, last = time.monotonic() + READY_PATIENCE_S, "no answer"
    while time.monotonic() < until and process.poll() is None:
        try:
            answer = target.ask(target.bodies[0], 10.0)
        except OSError as error:
            last = str(error)
        else:
            if target.good(answer):
                return
            last = answer[:200].decode(errors="replace")
        time.sleep(0.3)
    said = next(
        (line.strip() for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()) if line.strip()), "nothing"
    )
    state = "did not answer as it should" if process.poll() is None else f"ended with {process.returncode}"
    raise NoFiguresError(f"{state} ({last}); its last words: {said[:300]}")


def _free_port() -> int:
    """The first of three in a row that nobody has."""
    for port in range(21000, 32000, 7):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for number in range(port, port + 3):
                held.enter_context(socket.create_server(("127.0.0.1", number)))
            return port
    raise NoFiguresError("no three free ports in a row between 21000 and 32000")
