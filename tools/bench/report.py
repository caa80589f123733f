"""The generated part of docs/performance.md: ratios first, the figures after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.bench import figures, models, servers
from tools.bench.figures import ECHO, STARLETTE, TURNOUT, Cell, Results, ratio, short

if TYPE_CHECKING:
    from collections.abc import Sequence

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
TITLES = {TURNOUT: "Turnout"} | {server.name: server.title for server in servers.OTHERS}
CONNECTIONS, ROWS = (1, 32, 128), (1, 100, 1000)
DISTURBED = 0.1  # what other programs may take before a run is not one to quote
SATURATED = 0.9  # share of its core from which on the generator may be what is measured

RATIOS = """Requests a second of Turnout over those of each server: histogram boosting of 100 rounds on 20 numbers, one row where nothing
else is said (100 and 1,000 rows and the linear model at 32 connections). `p50` and processor time are told the same way round: there less
is better."""


def put_into(page: str, part: str) -> str:
    """`page` with `part` between the markers; ValueError where they are not there once each."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page must hold {BEGIN} and {END} once each")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{part.strip()}\n{END}{rest.partition(END)[2]}"


def text(results: Results) -> str:
    """Markdown."""
    parts = [_ratios(results), _aims(results), _one_row(results), _batches(results), _ours(results), _parts(results), _around(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times(number: float | None) -> str:
    return "" if number is None else short(number)


def _ratios(results: Results) -> str:
    """Ours over each other server's: what holds on another machine, too."""
    rows = []
    for name in results.others():
        shown = [times(ratio(results.find(TURNOUT, count), results.find(name, count))) for count in CONNECTIONS]
        shown.append(times(ratio(results.find(TURNOUT, 1), results.find(name, 1), "p50_ms")))
        shown.append(times(ratio(results.find(TURNOUT, 32), results.find(name, 32), "cpu_us")))
        shown += [times(ratio(results.find(TURNOUT, 32, count), results.find(name, 32, count))) for count in ROWS[1:]]
        shown.append(times(ratio(results.find(TURNOUT, 32, model=models.LINEAR), results.find(name, 32, model=models.LINEAR))))
        rows.append([TITLES[name], *shown])
    if not rows or results.find(TURNOUT, 32) is None:
        return ""
    head = [
        "Turnout, everything on, times",
        "1 connection",
        "32",
        "128",
        "p50 at 1",
        "processor at 32",
        "100 rows",
        "1,000 rows",
        "linear model",
    ]
    return f"### Ratios\n{RATIOS}\n\n{table(head, rows)}\n\n![Requests a second of each server](performance.svg)"


def _aims(results: Results) -> str:
    said = {True: "met", False: "**not met**", None: ""}
    rows = [[aim.what, aim.aim, aim.found, said[aim.met]] for aim in figures.aims(results)]
    return "### Aims\n" + table(["what", "aim", "found", ""], rows) + _by_turns(results)


def _by_turns(results: Results) -> str:
    """Empty where nothing was measured so."""
    turns = results.notes.get("by_turns")
    if not turns:
        return ""
    found = {f"requests/s over {TITLES[name]}'s": each for name, each in turns["per_second"].items()}
    found["p50 at one connection over the echo's"] = turns["p50"]
    rows = [[what, *(short(each[name]) for name in ("least", "median", "most"))] for what, each in found.items()]
    said = f"The first four are medians of {turns['rounds']} rounds, in which these servers ran beside each other and were asked by turns:"
    return f"\n\n{said}\n\n{table(['32 connections where nothing else is said', 'least', 'median', 'most'], rows)}"


def _one_row(results: Results) -> str:
    rows = []
    for model in (models.BOOSTED, models.LINEAR):
        for name in (TURNOUT, *results.others()):
            rows += [
                [TITLES[name], model, *_figures(cell)] for cell in (results.find(name, count, 1, model) for count in CONNECTIONS) if cell
            ]
    head = ["one row", "model", "connections", "requests/s", "p50 ms", "p99 ms", "µs of processor", "MiB", "generator"]
    return "### One row\n" + table(head, rows) if rows else ""


def _figures(cell: Cell) -> list[str]:
    beside = cell.beside_us > 0
    cpu = f"{short(cell.cpu_us)} + {short(cell.beside_us)}" if beside else short(cell.cpu_us)
    memory = f"{cell.memory_mib:.0f} + {cell.beside_mib:.0f}" if beside else f"{cell.memory_mib:.0f}"
    rate = f"{cell.per_second:,.0f}" if cell.per_second >= 10 else f"{cell.per_second:.1f}"
    rate += f" ({cell.refused / cell.requests:.0%} refused)" if cell.refused else ""
    generator = f"{cell.generator_busy:.0%}{' (full)' if cell.generator_busy > SATURATED else ''}"
    return [str(cell.connections), rate, short(cell.p50_ms), short(cell.p99_ms), cpu, memory, generator]


def _batches(results: Results) -> str:
    rows = []
    for model in (models.BOOSTED, models.LINEAR):
        for count in ROWS[1:]:
            for name in (TURNOUT, *results.others()):
                cells = (results.find(name, connections, count, model) for connections in CONNECTIONS)
                rows += [[TITLES[name], model, f"{count:,}", *_figures(cell)] for cell in cells if cell]
    head = ["batch", "model", "rows", "connections", "requests/s", "p50 ms", "p99 ms", "µs of processor", "MiB", "generator"]
    return "### Batches\n" + table(head, rows) if rows else ""


def _ours(results: Results) -> str:
    """What only we have: durabilities, promotions meanwhile, workers, a batch's floor, a native model."""
    lines = []
    variants = [
        cell for cell in results.cells if cell.server == TURNOUT and cell.variant and cell.measured and "workers" not in cell.variant
    ]
    usual = [cell for count in CONNECTIONS if (cell := results.find(TURNOUT, count))]
    if variants:
        rows = [[cell.variant or "DURABLE, everything on", *_figures(cell)] for cell in (*usual, *variants)]
        lines.append(
            table(["Turnout, one row", "connections", "requests/s", "p50 ms", "p99 ms", "µs of processor", "MiB", "generator"], rows)
        )
    notes = results.notes
    if paced := notes.get("paced"):
        rates = f"{paced['per_second']:,} requests/s of {paced['aimed_per_second']:,} aimed at; connections that wait at random"
        latencies = f"p50 {short(paced['p50_ms'])} ms, p99 {short(paced['p99_ms'])} ms, the longest {short(paced['max_ms'])} ms"
        lines.append(f"At 70 % of capacity ({rates}), with {paced['promotions']} promotions meanwhile: {latencies}.")
    if batch := notes.get("batch"):
        parse, graph, size = short(batch["parse_ms"]), short(batch["graph_ms"]), f"{batch['body_bytes']:,}"
        least = f"{parse} ms to parse {size} bytes of JSON and {graph} ms for the graph"
        ours = f"; Turnout's p50 at one connection is {short(batch['times'])} times their sum" if "times" in batch else ""
        lines.append(f"{batch['rows']:,} rows at least: {least}{ours}.")
    return "\n\n".join(["### Turnout alone", *lines, *_workers(results), *_forest(results)]) if lines else ""


def _workers(results: Results) -> list[str]:
    cells = {name: results.find(TURNOUT, 32, variant=f"{name} workers") for name in results.notes.get("workers", {})}
    rows = []
    for name, cell in cells.items():
        told = results.notes["workers"][name]
        each = ", ".join(f"{own['private_mib']} (PSS {own['pss_mib']})" for own in told["each"])
        if cell:
            rows.append([name, f"{cell.per_second:,.0f}", times(ratio(cell, cells.get("1"))), short(cell.cpu_us), each])
    if not rows:
        return []
    told = results.notes["workers"]["1"]
    where = "cores of their own" if told["cores_of_their_own"] else "the cores that generator, PostgreSQL and drain had as well"
    return [f"`--workers`, 32 connections, {told['cores']} cores for them, {where}:", table(
        ["serving processes", "requests/s", "times one", "µs of processor a request", "MiB of each, private"], rows)]  # fmt: skip


def _forest(results: Results) -> list[str]:
    ours, other = results.find(TURNOUT, 32, model=models.FOREST), results.find(STARLETTE, 32, model=models.FOREST)
    if ours is None or other is None:
        return []
    found = f"{ours.per_second:,.0f} requests/s at 32 connections, in process by a bare Starlette route {other.per_second:,.0f}"
    return [f"A forest of 100 trees that serves natively, in its locked child: {found}: {times(ratio(ours, other))} times."]


def _parts(results: Results) -> str:
    lines = results.notes.get("parts")
    return "### Parts of one request\n" + "\n".join(lines) if lines else ""


def _around(results: Results) -> str:
    """Where and how, what is missing, and how far to trust it."""
    others = f"Other programs took {results.taken_by_others:.0%} of all cores meanwhile"
    busy = [f"**{others}: these figures say little.**" if results.taken_by_others > DISTURBED else f"{others}."]
    lines = [
        f"Taken {results.taken} in {results.seconds / 60:.0f} minutes. "
        + ", ".join(f"{name}: {value}" for name, value in results.machine.items())
        + "."
    ]
    lines += busy
    lines += ["Versions: " + "; ".join(f"{TITLES.get(name, name)}: {value}" for name, value in results.versions.items()) + "."]
    lines += [f"**{TITLES.get(name, name)} was not measured**: {reason}" for name, reason in results.missing.items()]
    lines += [
        f"No figures of {TITLES[cell.server]}, {cell.model}, {cell.connections} connections, {cell.rows} rows: {cell.trouble}"
        for cell in results.cells
        if not cell.measured
    ]
    echoes = [
        cell for cell in results.cells if cell.server == ECHO and (cell.connections, cell.rows) == (32, 1) and cell.model == models.BOOSTED
    ]
    if len(echoes) > 1:
        lines.append(
            f"The echo at 32 connections, measured at the beginning and at the end, differs by a factor of {figures.drift(echoes):.2f}."
        )
    asked, checked, refused, bad = (
        sum(getattr(cell, name) for cell in results.cells) for name in ("requests", "checked", "refused", "bad")
    )
    looked = f"{checked:,} more answers looked at, {bad:,} not as they should be"
    lines.append(f"{asked:,} requests measured, {refused:,} of them refused; {looked}.")
    return "### This run\n" + "\n\n".join(lines)
