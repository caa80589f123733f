"""The registry's public documents, and what commands and the demo do with them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from app.cli.client import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.cli.client import Client

_VERSION = "model number status statusReason artifactDigest sizeBytes runtime classes signature { name type required } createdAt createdBy"
_PROMOTION = "model alias version previousVersion revision at by reason"
REGISTER = f"""mutation Register($input: RegisterModelVersionInput!) {{ registerModelVersion(input: $input) {{ {_VERSION} }} }}"""
VERSION = f"""query Version($model: String!, $number: Int!) {{ model(name: $model) {{ version(number: $number) {{ {_VERSION} }} }} }}"""
PROMOTE = f"""mutation Promote($model: String!, $version: Int!, $alias: String!, $allowBreaking: Boolean!, $reason: String) {{
  promote(model: $model, version: $version, alias: $alias, allowBreaking: $allowBreaking, reason: $reason) {{ {_PROMOTION} }}
}}"""
ROLLBACK = f"""mutation Rollback($model: String!, $alias: String!, $reason: String) {{
  rollback(model: $model, alias: $alias, reason: $reason) {{ {_PROMOTION} }}
}}"""
MODELS = """query Models($after: String) {
  models(first: 20, after: $after) {
    edges { node {
      name task description
      aliases { name revision version { number } }
      versions(first: 5) { edges { node { number status statusReason runtime tags createdAt } } }
    } }
    pageInfo { endCursor hasNextPage }
  }
}"""
_POLL_S = 0.1
_PATIENCE_S = 600.0


def register(client: Client, digest: str, given: dict[str, Any]) -> dict[str, Any]:
    """The new version (or, for the same artifact and input, the one that there is)."""
    return dict(client.query(REGISTER, input={**given, "artifactDigest": digest})["registerModelVersion"])


def wait_until_checked(client: Client, model: str, number: int) -> dict[str, Any]:
    """The version once it is no longer VALIDATING; raises Refused after ten minutes."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        version = dict(client.query(VERSION, model=model, number=number)["model"]["version"])
        if version["status"] != "VALIDATING":
            return version
        if time.monotonic() > end:
            raise Refused(f"{model} version {number} is still VALIDATING after {_PATIENCE_S:g} s.")
        time.sleep(_POLL_S)


def promote(
    client: Client, model: str, version: int, alias: str, *, reason: str | None = None, allow_breaking: bool = False
) -> dict[str, Any]:
    variables = {"model": model, "version": version, "alias": alias, "allowBreaking": allow_breaking, "reason": reason}
    return dict(client.query(PROMOTE, **variables)["promote"])


def rollback(client: Client, model: str, alias: str, *, reason: str | None = None) -> dict[str, Any]:
    return dict(client.query(ROLLBACK, model=model, alias=alias, reason=reason)["rollback"])


def models(client: Client) -> Iterator[dict[str, Any]]:
    """Every model of the tenant, by name, with its five newest versions."""
    after = None
    while True:
        page = client.query(MODELS, after=after)["models"]
        for edge in page["edges"]:
            node = edge["node"]
            yield {**node, "versions": [v["node"] for v in node["versions"]["edges"]]}
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]
