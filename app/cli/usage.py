"""`turnout usage`: what a tenant used and what it costs; as CSV by day, model and version."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from app.cli.client import Client
from app.cli.options import Target, json_option, service_options
from app.cli.output import show_json, show_table
from app.kernel.context import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

USAGE = """query Usage($from: DateTime!, $to: DateTime!) {
  usage(from: $from, to: $to) {
    requests rows computeMs artifactBytes costMicros currency
    byModel { model version requests rows computeMs }
  }
}"""
BY_DAY = """query UsageByDay($from: DateTime!, $to: DateTime!) {
  viewer { tenant }
  usage(from: $from, to: $to) { byDay { day model version requests rows computeMs artifactBytes } }
}"""
_COLUMNS = ("tenant", "day", "model", "version", "requests", "rows", "compute_ms", "artifact_bytes")
_AT_ONCE = timedelta(days=31)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet takes for the beginning of a formula, or of another cell
_TIMES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.option("--from", "start", type=_TIMES, help="First day or moment, UTC. Default: the first of this month.")
@click.option("--to", "end", type=_TIMES, help="Day or moment before which to end, UTC. Default: the end of today.")
@click.option("--csv", "as_csv", is_flag=True, help="By tenant, day, model and version, for spreadsheets.")
@service_options
@json_option
def usage(start: datetime | None, end: datetime | None, as_csv: bool, target: Target, as_json: bool) -> None:
    """Show what the tenant used and what it costs."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight.replace(day=1) if start is None else start.replace(tzinfo=UTC)
    last = midnight + timedelta(days=1) if end is None else end.replace(tzinfo=UTC)
    with Client(target.url, target.token_for(Role.READER)) as client:
        if as_csv:
            click.echo(to_csv(_by_day(client, first, last)), nl=False)
            return
        used = client.query(USAGE, **{"from": first.isoformat(), "to": last.isoformat()})["usage"]
    if as_json:
        show_json(used)
        return
    rows = [(each["model"], each["version"], each["requests"], each["rows"], each["computeMs"]) for each in used["byModel"]]
    show_table(
        ("model", "version", "requests", "rows", "compute ms"), [*rows, ("all", "", used["requests"], used["rows"], used["computeMs"])]
    )
    cost = f"{used['costMicros'] / 1e6:,.6f} {used['currency']}"
    click.echo(f"{used['artifactBytes']:,} bytes of artifacts kept; {cost}")


def to_csv(rows: Iterator[dict[str, Any]]) -> str:
    """A table of text with a head, as RFC 4180 has it; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for row in rows:
        cells = (
            row["tenant"],
            row["day"],
            row["model"],
            row["version"],
            row["requests"],
            row["rows"],
            row["computeMs"],
            row["artifactBytes"],
        )
        writer.writerow([_harmless(cell) for cell in cells])
    return text.getvalue()


def _by_day(client: Client, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
    while start < end:
        until = min(end, start + _AT_ONCE)
        answer = client.query(BY_DAY, **{"from": start.isoformat(), "to": until.isoformat()})
        for row in answer["usage"]["byDay"]:
            yield {"tenant": answer["viewer"]["tenant"], **row}
        start = until


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
