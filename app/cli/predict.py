"""`turnout predict`: one row, one answer."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from app.cli.client import Client
from app.cli.options import Target, json_option, service_options
from app.cli.output import show_json, show_table
from app.kernel.context import Role

PREDICT = """query Predict($model: String!, $features: FeatureRow!, $unit: ID, $alias: String, $version: Int) {
  predict(model: $model, features: $features, unit: $unit, alias: $alias, version: $version) {
    id model version variant experiment reason label probability value degraded
    probabilities { label probability }
  }
}"""


@click.command()
@click.argument("model")
@click.argument("features")
@click.option("--unit", help="Who is randomised: a user, a device, a session.")
@click.option("--alias", help="Ask the version behind this alias.")
@click.option("--version", type=int, help="Ask this version.")
@service_options
@json_option
def predict(model: str, features: str, unit: str | None, alias: str | None, version: int | None, target: Target, as_json: bool) -> None:
    """Answer one row. FEATURES is a JSON object by column, a JSON list in signature order, or - for standard input."""
    row = _row(features)
    role = Role.EXPERIMENTER if version is not None or alias not in {None, "production"} else Role.PREDICTOR
    with Client(target.url, target.token_for(role)) as client:
        answer = client.query(PREDICT, model=model, features=row, unit=unit, alias=alias, version=version)["predict"]
    if as_json:
        show_json(answer)
        return
    result = answer["value"] if answer["label"] is None else answer["label"]
    show_table(
        ("model", "version", "answer", "probability", "reason", "id"),
        [(answer["model"], answer["version"], result, answer["probability"], answer["reason"], answer["id"])],
    )


def _row(text: str) -> Any:
    try:
        row = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="FEATURES") from None
    if not isinstance(row, dict | list):
        raise click.BadParameter('must be a JSON object like {"age": 41} or a list like [41]', param_hint="FEATURES")
    return row
