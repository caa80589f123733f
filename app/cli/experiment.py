"""`turnout experiment ...`: what is compared, who sees it, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from app.cli import experiments
from app.cli.client import Client
from app.cli.options import Target, json_option, service_options
from app.cli.output import show_json, show_table
from app.kernel.context import Role

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STATUSES = click.Choice(["DRAFT", "RUNNING", "STOPPED", "CONCLUDED"], case_sensitive=False)


@click.group()
def experiment() -> None:
    """Versions compared in front of real users."""


@experiment.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--key", help="Name of the experiment.")
@click.option("--model", help="Whose versions are compared.")
@click.option("--hypothesis", help="What is expected, and why.")
@click.option("--control", metavar="NAME=VERSION[:WEIGHT]", help="What the others are compared with.")
@click.option("--variant", "variants", multiple=True, metavar="NAME=VERSION[:WEIGHT]", help="Another that answers; may be repeated.")
@click.option("--shadow", "shadows", multiple=True, metavar="NAME=VERSION", help="One that computes and answers nobody.")
@click.option("--metric", metavar="NAME[:KIND[:DIRECTION[:AGGREGATION]]]", help="The primary metric, like bought:proportion.")
@click.option("--secondary", multiple=True, metavar="METRIC", help="Written alike; may be repeated.")
@click.option("--guardrail", "guardrails", multiple=True, metavar="METRIC", help="Takes the traffic away where it is harmed.")
@click.option("--units", "planned_units", type=int, help="Units at which it ends.")
@click.option("--looks", "planned_looks", type=int, help="How many looks until then.")
@click.option("--layer", help="Experiments of one layer never share a unit.")
@click.option("--target", "targets", multiple=True, metavar="'ATTRIBUTE OPERATOR VALUE,...'", help="Who may take part: 'country IN NO,SE'.")
@click.option("--override", "overrides", multiple=True, metavar="UNIT=VARIANT", help="A unit forced into a variant, left out of results.")
@service_options
@json_option
def create(file: Path | None, target: Target, as_json: bool, **options: Any) -> None:
    """Plan an experiment. FILE is a JSON object like CreateExperimentInput of the GraphQL schema; options go over what it says."""
    given = {**(_json_object(file) if file else {}), **_planned(options)}
    for name in ("key", "model", "variants", "primaryMetric"):
        if not given.get(name):
            option = {"variants": "control and --variant", "primaryMetric": "metric"}.get(name, name)
            raise click.UsageError(f"{name} is missing: give FILE, or --{option}.")
    with Client(target.url, target.token_for(Role.EXPERIMENTER)) as client:
        _show([experiments.create(client, given)], as_json, one=True)


@experiment.command(name="list")
@click.option("--model", help="Of this model alone.")
@click.option("--status", type=_STATUSES, help="Of this status alone.")
@service_options
@json_option
def list_(model: str | None, status: str | None, target: Target, as_json: bool) -> None:
    """Experiments, newest first."""
    with Client(target.url, target.token_for(Role.READER)) as client:
        _show(list(experiments.listed(client, model, status and status.upper())), as_json)


@experiment.command()
@click.argument("key")
@service_options
@json_option
def show(key: str, target: Target, as_json: bool) -> None:
    """One experiment with its plan."""
    with Client(target.url, target.token_for(Role.READER)) as client:
        found = experiments.show(client, key)
    if as_json:
        show_json(found)
        return
    show_table(("experiment", found["key"]), [row for row in _details(found) if row[1] not in {None, ""}])


@experiment.command()
@click.argument("key")
@click.option("--rollout", type=float, default=100.0, show_default=True, help="Percent of units that take part.")
@service_options
@json_option
def start(key: str, rollout: float, target: Target, as_json: bool) -> None:
    """Let units take part."""
    with Client(target.url, target.token_for(Role.EXPERIMENTER)) as client:
        _show([experiments.start(client, key, rollout)], as_json, one=True)


@experiment.command()
@click.argument("key")
@click.argument("rollout", type=float)
@service_options
@json_option
def ramp(key: str, rollout: float, target: Target, as_json: bool) -> None:
    """Change how many take part. ROLLOUT is in percent; nobody changes variant."""
    with Client(target.url, target.token_for(Role.EXPERIMENTER)) as client:
        _show([experiments.ramp(client, key, rollout)], as_json, one=True)


@experiment.command()
@click.argument("key")
@click.option("--reason", help="Why; kept in the audit log.")
@service_options
@json_option
def stop(key: str, reason: str | None, target: Target, as_json: bool) -> None:
    """Let nobody take part any more."""
    with Client(target.url, target.token_for(Role.EXPERIMENTER)) as client:
        _show([experiments.stop(client, key, reason)], as_json, one=True)


@experiment.command()
@click.argument("key")
@click.option("--promote", "variant", metavar="VARIANT", help="Its version becomes production, in the same moment; needs an ADMIN.")
@click.option("--expected-revision", type=int, help="Of the alias production, as you saw it.")
@click.option("--reason", help="Why; kept in the audit log.")
@service_options
@json_option
def conclude(key: str, variant: str | None, expected_revision: int | None, reason: str | None, target: Target, as_json: bool) -> None:
    """End it, and promote the winner."""
    with Client(target.url, target.token_for(Role.EXPERIMENTER if variant is None else Role.ADMIN)) as client:
        _show([experiments.conclude(client, key, variant, expected_revision, reason)], as_json, one=True)


@experiment.command()
@click.argument("key")
@click.option("--metric", help="Which; the primary one unless named.")
@service_options
@json_option
def results(key: str, metric: str | None, target: Target, as_json: bool) -> None:
    """What came of it, variant by variant."""
    with Client(target.url, target.token_for(Role.READER)) as client:
        found = experiments.results(client, key, metric)
    if as_json:
        show_json(found)
    elif found is None:
        raise click.ClickException(f"There are no results of {key} yet.")
    else:
        _show_results(found)


def _planned(options: dict[str, Any]) -> dict[str, Any]:
    """CreateExperimentInput, as far as the options say it."""
    variants = [_variant(options["control"], control=True)] if options["control"] else []
    variants += [_variant(text) for text in options["variants"]] + [_variant(text, shadow=True) for text in options["shadows"]]
    planned = {
        "key": options["key"],
        "model": options["model"],
        "hypothesis": options["hypothesis"],
        "variants": variants,
        "primaryMetric": _metric(options["metric"]) if options["metric"] else None,
        "secondaryMetrics": [_metric(text) for text in options["secondary"]],
        "guardrails": [_metric(text) for text in options["guardrails"]],
        "plannedUnits": options["planned_units"],
        "plannedLooks": options["planned_looks"],
        "layer": options["layer"],
        "targeting": [_rule(text) for text in options["targets"]],
        "overrides": [_override(text) for text in options["overrides"]],
    }
    return {name: value for name, value in planned.items() if value not in (None, [])}


def _variant(text: str, *, control: bool = False, shadow: bool = False) -> dict[str, Any]:
    name, equals, rest = text.partition("=")
    version, colon, weight = rest.partition(":")
    if not (name and equals and version.isdecimal() and (weight.isdecimal() if colon else True)):
        raise click.UsageError(f"{text!r} is no variant: write NAME=VERSION or NAME=VERSION:WEIGHT, like boosted=2.")
    given: dict[str, Any] = {"name": name, "version": int(version), "control": control, "shadow": shadow}
    return {**given, "weight": int(weight)} if colon else given


def _metric(text: str) -> dict[str, Any]:
    parts = text.split(":")
    if not 1 <= len(parts) <= 4 or not all(parts):
        raise click.UsageError(f"{text!r} is no metric: write NAME[:KIND[:DIRECTION[:AGGREGATION]]], like spent:mean:increase:sum.")
    kind = parts[1] if len(parts) > 1 else "proportion"
    named = {"kind": kind, **dict(zip(("direction", "aggregation"), parts[2:], strict=False))}
    return {"name": parts[0], **{name: word.upper() for name, word in named.items()}}


def _rule(text: str) -> dict[str, Any]:
    parts = text.split(None, 2)
    if len(parts) != 3:
        raise click.UsageError(f"{text!r} is no rule: write ATTRIBUTE OPERATOR VALUE,..., like 'country IN NO,SE'.")
    attribute, operator, values = parts
    return {"attribute": attribute, "operator": operator.upper(), "values": [value.strip() for value in values.split(",")]}


def _override(text: str) -> dict[str, str]:
    unit, equals, variant = text.rpartition("=")  # a unit may hold the sign, a variant may not
    if not (unit and equals and variant):
        raise click.UsageError(f"{text!r} is no override: write UNIT=VARIANT.")
    return {"unit": unit, "variant": variant}


def _json_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.UsageError(f"{path} is not JSON: {error}.") from None
    if not isinstance(data, dict):
        raise click.UsageError(f"{path} must hold a JSON object like CreateExperimentInput.")
    return data


def _show(found: list[dict[str, Any]], as_json: bool, *, one: bool = False) -> None:
    if as_json:
        show_json(found[0] if one else found)
        return
    rows = [(e["key"], e["model"], e["status"], f"{e['rollout']:g} %", _variants(e), _name(e["primaryMetric"]), e["layer"]) for e in found]
    show_table(("experiment", "model", "status", "rollout", "variants", "metric", "layer"), rows)


def _details(found: dict[str, Any]) -> list[tuple[str, Any]]:
    targeting = [f"{rule['attribute']} {rule['operator']} {','.join(rule['values'])}" for rule in found["targeting"]]
    return [
        ("model", found["model"]),
        ("status", found["status"]),
        ("source", found["source"]),
        ("hypothesis", found["hypothesis"]),
        ("rollout", f"{found['rollout']:g} %"),
        ("variants", _variants(found)),
        ("primary metric", _name(found["primaryMetric"])),
        ("secondary metrics", ", ".join(_name(each) for each in found["secondaryMetrics"])),
        ("guardrails", ", ".join(_name(each) for each in found["guardrails"])),
        ("planned units", found["plannedUnits"]),
        ("planned looks", found["plannedLooks"]),
        ("layer", found["layer"]),
        ("targeting", " and ".join(targeting)),
        ("created", f"{found['createdAt']} by {found['createdBy']}"),
        ("started", found["startedAt"]),
        ("ended", found["endedAt"]),
        ("revision", found["revision"]),
    ]


def _variants(found: dict[str, Any]) -> str:
    texts = []
    for each in found["variants"]:
        what = each["alias"] if each["version"] is None else each["version"]
        words = [word for word in ("control", "shadow") if each[word]]
        weight = "" if each["shadow"] else f" × {each['weight']}"
        texts.append(f"{each['name']} → {what}{weight}" + (f" ({', '.join(words)})" if words else ""))
    return ", ".join(texts)


def _name(metric: dict[str, Any] | None) -> str:
    return "" if metric is None else f"{metric['name']} ({metric['kind']} {metric['direction']} {metric['aggregation']})"


def _show_results(found: dict[str, Any]) -> None:
    split = "as asked for" if found["srm"]["ok"] else f"NOT as asked for (p {_number(found['srm']['pValue'])})"
    winner = f", {found['winner']}" if found["winner"] else ""
    looks = f"look {found['looks']} of {found['plannedLooks']}"
    click.echo(f"{found['metric']}: {found['verdict']}{winner}; {looks}; the split is {split}; {found['computedAt']}")
    columns = ("variant", "units", "exposures", "mean", "difference", "lift", "p", "at any moment", "beats control", "verdict")
    show_table(columns, [_result(each) for each in found["variants"]])


def _result(each: dict[str, Any]) -> tuple[Any, ...]:
    mean = _number(each["mean"]) + (f" ± {_number(each['standardError'])}" if each["standardError"] is not None else "")
    between = f"{_number(each['sequentialLow'])} … {_number(each['sequentialHigh'])}" if each["sequentialLow"] is not None else ""
    return (
        each["variant"],
        each["units"],
        each["exposures"],
        mean,
        _interval(each, "difference", 1.0, ""),
        _interval(each, "lift", 100.0, " %"),
        _number(each["pValue"]),
        between,
        _number(each["chanceToBeatControl"]),
        each["verdict"],
    )


def _interval(each: dict[str, Any], name: str, times: float, unit: str) -> str:
    if each[name] is None:
        return ""
    low, high = each[f"{name}Low"], each[f"{name}High"]
    between = "" if low is None or high is None else f" ({_number(low * times)} … {_number(high * times)})"
    return f"{_number(each[name] * times)}{unit}{between}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
