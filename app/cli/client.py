"""A small client of the service's public API: GraphQL and the upload. What goes wrong is said in words that name the next step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import click
import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_PIECE_BYTES = 1024 * 1024
_WHICH_SERVICE = (
    "say which one: --url URL, TURNOUT_URL, or TURNOUT_HOME, the data folder of a service on this machine (unset: .turnout where you are)"
)
_ABOUT_TOKENS = """On a development machine: does the tenant exist (turnout tenant list), on this service? Then the token may be too old,
  or of another data folder (TURNOUT_HOME). A fresh one: turnout token --tenant TENANT --subject me --role ADMIN --ttl 1h"""


class Refused(click.ClickException):
    """The service said no, or could not be asked; exit status 1. `code` is the wire's ErrorCode, None where there was no answer."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """One connection to one service as one caller."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/graphql-response+json, application/json"}
        # trust_env off: a proxy is for other people's machines, and ~/.netrc holds other people's passwords
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def query(self, document: str, **variables: Any) -> dict[str, Any]:
        """The `data` of an answer without errors; raises Refused with the first error's message and code."""
        answer = self._send("POST", "/graphql", json={"query": document, "variables": variables})
        body = _json_of(answer)
        if body.get("errors"):
            raise _refusal(answer.status_code, body)
        data = body.get("data")
        if not isinstance(data, dict):
            raise Refused(f"{self.url} answered {answer.status_code} without data: is it a Turnout service?")
        return data

    def upload(self, path: Path, signature: str | None = None) -> str:
        """The sha256 (hex) under which the service keeps the file's bytes. Streams: no copy of the file in memory.

        `signature`: as `turnout artifact sign` prints it.
        """
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        if signature is not None:
            headers["Artifact-Signature"] = signature
        answer = self._send("POST", "/artifacts", content=_pieces(path), headers=headers, timeout=httpx.Timeout(600.0, connect=5.0))
        body = _json_of(answer)
        if answer.status_code != 201:
            raise _refusal(answer.status_code, body)
        return str(body["digest"])

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.ConnectError:
            raise Refused(f"Nothing answers at {self.url}. Start the service (make run), or {_WHICH_SERVICE}.") from None
        except httpx.TimeoutException:
            raise Refused(f"{self.url} did not answer in time.") from None
        except httpx.InvalidURL as error:
            raise Refused(f"{self.url!r} is no URL: {error}.") from None
        except httpx.HTTPError as error:
            raise Refused(f"{self.url} broke off: {error}.") from None


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _json_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(f"{answer.request.url} answered {answer.status_code} and no JSON: is it a Turnout service?")
    return body


def _refusal(status: int, body: dict[str, Any]) -> Refused:
    errors = body.get("errors") or [{}]
    first = errors[0] if isinstance(errors[0], dict) else {}
    extensions = first.get("extensions") or {}
    code = extensions.get("code")
    message = str(first.get("message", "refused"))
    blockers = [item for item in extensions.get("blockers") or [] if isinstance(item, dict)]
    told = [*(extensions.get("problems") or []), *(item for item in blockers if str(item.get("message")) not in message)]
    lines = [f"{message} ({code or status})", *(f"  {_problem(item)}" for item in told)]
    if blockers and all(item.get("overridable") for item in blockers):
        lines.append('  Here that is: turnout model promote MODEL VERSION --allow-breaking --reason "WHY"')
    if status == 401:
        lines.append(f"  {_ABOUT_TOKENS}")
    if request_id := extensions.get("requestId"):
        lines.append(f"  request {request_id}")
    return Refused("\n".join(lines), code)


def _problem(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    if "name" in item:
        detail = ", ".join(f"{key} {json.dumps(item[key])}" for key in ("expected", "got") if item.get(key) is not None)
        row = f"row {item['row']}" if "row" in item else "the row"
        where = row if item["name"] is None else item["name"] or '""'
        return f"{where}: {item.get('problem')}" + (f" ({detail})" if detail else "")
    return f"{item.get('code')}: {item.get('message')}"
