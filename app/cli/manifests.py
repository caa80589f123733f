"""GraphQL documents from files: as people write them, and as the build tools of clients list them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".graphql", ".gql")
_APOLLO = "apollo-persisted-query-manifest"
_KNOWN = (
    "Known are Apollo's persisted query manifest ({format, version, operations: [{id, body}]}) and an object of ids and texts "
    "({id: text}, as Relay, graphql-codegen and gql.tada write it, or {id: {source: text}}, as Apollo Kotlin's operationOutput has it)."
)


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """`id` None: it is to follow from the text. `source`: where it was found, for people."""

    id: str | None
    text: str
    source: str


def read_documents(path: Path) -> list[ListedDocument]:
    """The documents of a folder (its .graphql and .gql files, at any depth), of one such file, or of a manifest.

    Raises click.ClickException that names the file and what would be right.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise click.ClickException(f"{path} holds no .graphql or .gql file. A manifest is pushed by its own name.")
        return [_read_file(file, str(file.relative_to(path))) for file in files]
    if path.suffix in SUFFIXES:
        return [_read_file(path, path.name)]
    found = _of_manifest(path.name, _json(path))
    if not found:
        raise click.ClickException(f"{path.name} lists no document.")
    return found


def _read_file(path: Path, source: str) -> ListedDocument:
    return ListedDocument(None, _text(path), source)


def _of_manifest(name: str, data: Any) -> list[ListedDocument]:
    if isinstance(data, dict) and ("format" in data or "operations" in data):
        return _of_apollo(name, data)
    if not isinstance(data, dict):
        raise click.ClickException(f"{name} is no manifest. {_KNOWN}")
    return [_of_pair(name, key, value) for key, value in data.items()]


def _of_apollo(name: str, data: dict[str, Any]) -> list[ListedDocument]:
    if data.get("format") != _APOLLO or data.get("version") != 1 or not isinstance(data.get("operations"), list):
        raise click.ClickException(f'{name} has not the format "{_APOLLO}" of version 1 with a list of operations. {_KNOWN}')
    found = []
    for index, operation in enumerate(data["operations"]):
        if not isinstance(operation, dict) or not isinstance(operation.get("id"), str) or not isinstance(operation.get("body"), str):
            raise click.ClickException(f"{name}: operations[{index}] has no `id` and `body` that are texts.")
        found.append(ListedDocument(operation["id"], operation["body"], f"{name}: {operation.get('name') or operation['id']}"))
    return found


def _of_pair(name: str, key: str, value: Any) -> ListedDocument:
    if isinstance(value, str):
        return ListedDocument(key, value, f"{name}: {key}")
    if isinstance(value, dict) and isinstance(value.get("source"), str):
        return ListedDocument(key, value["source"], f"{name}: {value.get('name') or key}")
    raise click.ClickException(f"{name}: {key[:80]!r} is no document's text. {_KNOWN}")


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{path.name} is neither a .graphql file nor JSON: {error}. {_KNOWN}") from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # as it is: the id is of these bytes
    except UnicodeDecodeError:
        raise click.ClickException(f"{path.name} is not UTF-8.") from None
    except OSError as error:
        raise click.ClickException(f"{path.name} cannot be read: {error.strerror}.") from None
