"""`turnout model ...`: the registry from a terminal or a CI job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from app.cli import registry
from app.cli.client import Client
from app.cli.options import Target, json_option, service_options
from app.cli.output import note, show_json, show_table
from app.kernel.context import Role
from app.kernel.signature import Task

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def model() -> None:
    """Models, versions and what serves."""


@model.command()
@click.argument("file", type=_FILE)
@click.option("--model", "name", required=True, help="Name of the model; made with its first version.")
@click.option("--task", required=True, type=click.Choice([t.value.lower() for t in Task], case_sensitive=False))
@click.option("--sample", type=_FILE, help="JSON list of 5 to 1,000 rows, run through the model before it may serve.")
@click.option("--metrics", type=_FILE, help="JSON object of what training measured.")
@click.option("--lineage", type=_FILE, help="JSON object: trainingData, gitCommit, pipelineRun, parentVersion.")
@click.option("--description", help="What this version is.")
@click.option("--signature", help="What `turnout artifact sign` printed, or a file that holds it.")
@click.option("--wait", is_flag=True, help="Wait for the verdict; exit status 1 where it is FAILED.")
@service_options
@json_option
def register(
    file: Path, name: str, task: str, sample: Path | None, metrics: Path | None, lineage: Path | None, description: str | None,
    signature: str | None, wait: bool, target: Target, as_json: bool,
) -> None:  # fmt: skip
    """Upload FILE (joblib or skops) as the next version."""
    given: dict[str, Any] = {"model": name, "task": task.upper()}
    if sample:
        given["sample"] = _json_file(sample, list, "rows")
    if metrics:
        given["metrics"] = _json_file(metrics, dict, "metrics")
    if lineage:
        given["lineage"] = _json_file(lineage, dict, "lineage")
    if description:
        given["description"] = description
    roles = (Role.PUBLISHER, Role.READER) if wait else (Role.PUBLISHER,)
    with Client(target.url, target.token_for(*roles)) as client:
        note(f"uploading {file} ({file.stat().st_size:,} bytes)")
        version = registry.register(client, client.upload(file, _signature(signature)), given)
        if wait:
            note(f"{name} version {version['number']}: checking")
            version = registry.wait_until_checked(client, name, version["number"])
    _show_version(version, as_json)
    if wait and version["status"] != "READY":
        raise SystemExit(1)


@model.command()
@click.argument("name", metavar="MODEL")
@click.argument("version", type=int)
@click.option("--alias", default="production", show_default=True)
@click.option("--reason", help="Why; kept in the history.")
@click.option("--allow-breaking", is_flag=True, help="Also where the signature breaks the alias's callers.")
@service_options
@json_option
def promote(name: str, version: int, alias: str, reason: str | None, allow_breaking: bool, target: Target, as_json: bool) -> None:
    """Point an alias of MODEL at VERSION."""
    with Client(target.url, target.token_for(Role.ADMIN)) as client:
        _show_promotion(registry.promote(client, name, version, alias, reason=reason, allow_breaking=allow_breaking), as_json)


@model.command()
@click.argument("name", metavar="MODEL")
@click.option("--alias", default="production", show_default=True)
@click.option("--reason", help="Why; kept in the history.")
@service_options
@json_option
def rollback(name: str, alias: str, reason: str | None, target: Target, as_json: bool) -> None:
    """Point an alias of MODEL back. It serves the version before again."""
    with Client(target.url, target.token_for(Role.ADMIN)) as client:
        _show_promotion(registry.rollback(client, name, alias, reason=reason), as_json)


@model.command()
@click.argument("name", metavar="MODEL")
@click.argument("version", type=int)
@click.option("--reason", required=True, help="Why; kept in the history and the audit log.")
@service_options
@json_option
def withdraw(name: str, version: int, reason: str, target: Target, as_json: bool) -> None:
    """Stop VERSION of MODEL at once and for good."""
    with Client(target.url, target.token_for(Role.ADMIN)) as client:
        withdrawn = registry.withdraw(client, name, version, reason)
        aliases = registry.serving(client, name)
    if as_json:
        show_json({**withdrawn, "aliases": aliases})
        return
    _show_version(withdrawn, as_json=False)
    if aliases:
        click.echo()
        show_table(("alias", "serves now", "applied"), [_alias_row(alias, version) for alias in aliases])


@model.command()
@click.argument("name", metavar="MODEL")
@click.argument("version", type=int)
@click.option("--reason", help="Why; kept in the audit log.")
@service_options
@json_option
def archive(name: str, version: int, reason: str | None, target: Target, as_json: bool) -> None:
    """Retire VERSION of MODEL, which nothing uses."""
    with Client(target.url, target.token_for(Role.ADMIN)) as client:
        _show_version(registry.archive(client, name, version, reason), as_json)


@model.command()
@click.argument("name", metavar="MODEL")
@click.option("--previous", is_flag=True, help="What the alias would be rolled back to.")
@click.option("--version", type=int, help="This version.")
@click.option("--answer", help="This label or number, the same for every row.")
@click.option("--none", is_flag=True, help="Nobody: the request gets the error.")
@service_options
@json_option
def fallback(name: str, previous: bool, version: int | None, answer: str | None, none: bool, target: Target, as_json: bool) -> None:
    """Who answers where the version of MODEL fails."""
    asked = {"PREVIOUS": previous, "VERSION": version is not None, "ANSWER": answer is not None, "NONE": none}
    kinds = [kind for kind, given in asked.items() if given]
    if len(kinds) != 1:
        raise click.UsageError("Exactly one of --previous, --version, --answer and --none.")
    with Client(target.url, target.token_for(Role.ADMIN)) as client:
        changed = registry.fall_back(client, name, kinds[0], version, answer)
    if as_json:
        show_json(changed)
    else:
        show_table(("model", "falls back on"), [(changed["name"], _fallback_words(changed["fallback"]))])


@model.command(name="list")
@service_options
@json_option
def list_(target: Target, as_json: bool) -> None:
    """Models, what serves and the newest versions."""
    with Client(target.url, target.token_for(Role.READER)) as client:
        models = list(registry.models(client))
    if as_json:
        show_json(models)
        return
    show_table(("model", "task", "serves", "newest versions", "falls back on"), [_model_row(m) for m in models])


def _alias_row(alias: dict[str, Any], withdrawn: int) -> tuple[str, ...]:
    """What it serves after the withdrawal; who applied that, where it is what the alias stepped back to."""
    serves = f"version {alias['version']['number']}"
    if alias["version"]["status"] != "READY":
        serves = f"nothing: {serves} is {alias['version']['status']}, and there is no earlier one; promote another"
    stepped_back = [step for step in alias["history"] if step["previousVersion"] == withdrawn]
    return alias["name"], serves, _applied(stepped_back[0]) if stepped_back else ""


def _applied(promotion: dict[str, Any]) -> str:
    """Who serves the change: as far as it is known, never guessed."""
    missing = [ack["replica"] for ack in promotion["appliedBy"] if ack["appliedAt"] is None]
    if promotion["appliedEverywhere"]:
        return f"everywhere ({len(promotion['appliedBy'])})" if promotion["appliedBy"] else "everywhere"
    return f"not heard of: {', '.join(missing)}" if missing else "not known"


def _fallback_words(found: dict[str, Any] | None) -> str:
    kind = "NONE" if found is None else found["kind"]
    if found is None or kind == "NONE":
        return "nobody"
    named = {"VERSION": f"version {found['version']}", "ANSWER": f"the answer {json.dumps(found['answer'], ensure_ascii=False)}"}
    return named.get(kind, "the previous version")


def _model_row(found: dict[str, Any]) -> tuple[str, ...]:
    aliases = ", ".join(f"{a['name']} → {a['version']['number']}" for a in found["aliases"])
    versions = ", ".join(f"{v['number']} {v['status']}" for v in found["versions"])
    return found["name"], found["task"], aliases, versions, _fallback_words(found["fallback"])


def _show_version(version: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(version)
        return
    row = (version["model"], version["number"], version["status"], version["statusReason"], version["artifactDigest"])
    show_table(("model", "version", "status", "reason", "artifact"), [row])


def _show_promotion(promotion: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(promotion)
        return
    row = tuple(promotion[key] for key in ("model", "alias", "version", "previousVersion", "revision", "by"))
    show_table(("model", "alias", "version", "before", "revision", "by", "applied"), [(*row, _applied(promotion))])


def _signature(given: str | None) -> str | None:
    """The text itself, or what stands in the file of that name."""
    if given is None or ":" in given:
        return given
    try:
        return Path(given).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(
            f"--signature {given!r} is neither a signature (KEY-ID:BASE64) nor a file that holds one: {error}."
        ) from None


def _json_file(path: Path, kind: type, what: str) -> Any:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{path} is not JSON: {error}.") from None
    if not isinstance(data, kind):
        raise click.UsageError(f"{path} must hold a JSON {'list' if kind is list else 'object'} of {what}.")
    return data
