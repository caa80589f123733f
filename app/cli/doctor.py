"""`turnout doctor`: what is configured, what is reachable, what is unsafe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.doctor_audit import audit_findings
from app.cli.doctor_database import database_findings
from app.cli.doctor_limits import limit_findings
from app.cli.doctor_machine import home_findings, key_findings, model_host_findings, service_findings, setting_findings, spool_findings
from app.cli.findings import is_healthy
from app.cli.options import json_option, load_settings
from app.cli.output import show_json, show_table

if TYPE_CHECKING:
    from app.cli.findings import Finding
    from app.settings import Settings


@click.command()
@click.option("--audit", is_flag=True, help="Verify every tenant's audit log, too; that reads all of it.")
@click.option(
    "--heads",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --audit: a file of the service's log lines, whose audit_head events the logs must still hold.",
)
@json_option
def doctor(audit: bool, heads: Path | None, as_json: bool) -> None:
    """Say what is configured, reachable and unsafe. Exit status 1 where something needs doing."""
    if heads is not None and not audit:
        raise click.UsageError("--heads goes with --audit.")
    settings = load_settings()
    findings = examine(settings)
    if audit:
        findings += audit_findings(settings, heads)
    if as_json:
        show_json({"healthy": is_healthy(findings), "findings": [asdict(finding) for finding in findings]})
    else:
        show_table(("area", "state", "finding"), [(f.area, f.level.value, f.text) for f in findings])
    if not is_healthy(findings):
        raise SystemExit(1)


def examine(settings: Settings) -> list[Finding]:
    """Everything that there is to say, in the order in which one would look. Changes nothing."""
    return [
        *setting_findings(settings),
        *home_findings(settings),
        *key_findings(settings),
        *service_findings(settings),
        *database_findings(settings),
        *limit_findings(settings),
        *model_host_findings(settings),
        *spool_findings(settings),
    ]
