"""The picture beside the report: requests a second of each server, one row, as bars on a logarithmic scale. SVG, written by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tools.bench.figures import ECHO, TURNOUT
from tools.bench.report import CONNECTIONS, TITLES

if TYPE_CHECKING:
    from tools.bench.figures import Results

LEFT, TOP, WIDTH, BAR, GAP, RIGHT = 210, 56, 520, 13, 16, 90
SHADES = {1: "0.45", 32: "1", 128: "0.7"}
COLOURS = {TURNOUT: "#c2410c", ECHO: "#64748b"}
OTHER = "#1d4ed8"


def svg(results: Results) -> str:
    """A picture of what was measured; an empty frame where nothing was."""
    names = [name for name in (TURNOUT, *results.others()) if results.find(name, 32)]
    names.sort(key=lambda name: -(cell.per_second if (cell := results.find(name, 32)) else 0))
    shown = {(name, count): cell.per_second for name in names for count in CONNECTIONS if (cell := results.find(name, count))}
    low = 10 ** math.floor(math.log10(min(shown.values(), default=10)))
    high = max(10 ** math.ceil(math.log10(max(shown.values(), default=100))), 10 * low)

    def along(value: float) -> float:
        return WIDTH * math.log(value / low) / math.log(high / low)

    height = TOP + len(names) * (len(CONNECTIONS) * BAR + GAP) + 24
    body = [_label(LEFT, 20, "Requests a second, one row, histogram boosting (logarithmic)", 15)]
    body.append(_label(LEFT, 38, "each from top: 1, 32 and 128 connections; one core for the server", 11))
    for exponent in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = LEFT + along(10**exponent)
        body.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - 20}" stroke="#cbd5e1"/>')
        body.append(_label(x, height - 6, f"{10**exponent:,}", 11, "middle"))
    y = TOP
    for name in names:
        body.append(_label(LEFT - 8, y + 1.5 * BAR + 4, TITLES[name], 12, "end"))
        for count in CONNECTIONS:
            if value := shown.get((name, count)):
                colour = f'fill="{COLOURS.get(name, OTHER)}" fill-opacity="{SHADES[count]}"'
                body.append(f'<rect x="{LEFT}" y="{y}" width="{along(value):.1f}" height="{BAR - 1}" {colour}/>')
                body.append(_label(LEFT + along(value) + 4, y + BAR - 3, f"{value:,.0f}", 10))
            y += BAR
        y += GAP
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{height}" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}"'
    lines = "\n".join(body)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    return f'{head}\n<rect width="100%" height="100%" fill="white"/>\n{lines}\n</svg>\n'


def _label(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#0f172a">{escape(text)}</text>'
