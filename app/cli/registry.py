"""The registry's public documents, and what commands and the demo do with them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from app.cli.client import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.cli.client import Client

_VERSION = "model number status statusReason artifactDigest sizeBytes runtime classes signature { name type required } createdAt createdBy"
_APPLIED = "appliedEverywhere appliedBy { replica appliedAt }"
_PROMOTION = f"model alias version previousVersion revision at by reason {_APPLIED}"
REGISTER = f"""mutation Register($input: RegisterModelVersionInput!) {{ registerModelVersion(input: $input) {{ {_VERSION} }} }}"""
VERSION = f"""query Version($model: String!, $number: Int!) {{ model(name: $model) {{ version(number: $number) {{ {_VERSION} }} }} }}"""
PROMOTE = f"""mutation Promote($model: String!, $version: Int!, $alias: String!, $allowBreaking: Boolean!, $reason: String) {{
  promote(model: $model, version: $version, alias: $alias, allowBreaking: $allowBreaking, reason: $reason) {{ {_PROMOTION} }}
}}"""
ROLLBACK = f"""mutation Rollback($model: String!, $alias: String!, $reason: String) {{
  rollback(model: $model, alias: $alias, reason: $reason) {{ {_PROMOTION} }}
}}"""
WITHDRAW = f"""mutation Withdraw($model: String!, $version: Int!, $reason: String!) {{
  withdrawModelVersion(model: $model, version: $version, reason: $reason) {{ {_VERSION} }}
}}"""
ARCHIVE = f"""mutation Archive($model: String!, $version: Int!, $reason: String) {{
  archiveModelVersion(model: $model, version: $version, reason: $reason) {{ {_VERSION} }}
}}"""
SERVING = f"""query Serving($model: String!) {{ model(name: $model) {{ aliases {{
  name revision version {{ number status }} history(first: 1) {{ edges {{ node {{ {_PROMOTION} }} }} }} }} }} }}"""
TASK = """query Task($model: String!) { model(name: $model) { task } }"""
FALLBACK = """mutation Fallback($model: String!, $fallback: FallbackInput!) {
  updateModel(name: $model, input: {fallback: $fallback}) { name task fallback { kind version answer } }
}"""
MODELS = """query Models($after: String) {
  models(first: 20, after: $after) {
    edges { node {
      name task description fallback { kind version answer }
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


def withdraw(client: Client, model: str, version: int, reason: str) -> dict[str, Any]:
    """The version, WITHDRAWN."""
    return dict(client.query(WITHDRAW, model=model, version=version, reason=reason)["withdrawModelVersion"])


def archive(client: Client, model: str, version: int, reason: str | None) -> dict[str, Any]:
    """The version, ARCHIVED."""
    return dict(client.query(ARCHIVE, model=model, version=version, reason=reason)["archiveModelVersion"])


def serving(client: Client, model: str) -> list[dict[str, Any]]:
    """What each alias of the model serves, and the step that brought it there: with `appliedBy` and `appliedEverywhere`."""
    found = client.query(SERVING, model=model)["model"]["aliases"]
    return [{**alias, "history": [edge["node"] for edge in alias["history"]["edges"]]} for alias in found]


def fall_back(client: Client, model: str, kind: str, version: int | None, answer: str | None) -> dict[str, Any]:
    """The model with the fallback. `answer`: a label, or a number's text, as the model's task wants it."""
    fallback: dict[str, Any] = {"kind": kind} | ({} if version is None else {"version": version})
    if answer is not None:
        task = client.query(TASK, model=model)["model"]["task"]
        fallback["answer"] = _number(answer) if task == "REGRESSION" else answer
    return dict(client.query(FALLBACK, model=model, fallback=fallback)["updateModel"])


def _number(text: str) -> Any:
    """What the text says; the text itself where it is no number, which the service then refuses in words."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


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
