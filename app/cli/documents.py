"""`turnout documents ...`: GraphQL documents that clients name by an id in place of sending them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.client import Client, Refused
from app.cli.manifests import ListedDocument, read_documents
from app.cli.options import Target, json_option, service_options
from app.cli.output import show_json, show_table
from app.kernel.context import Role
from app.tenancy.documents.rules import known_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LIST = """query Documents($after: String) {
  page: %s(first: 100, after: $after) {
    edges { node { id operations text createdAt createdBy } } pageInfo { endCursor hasNextPage } }
}"""
_REGISTER = """mutation RegisterDocuments($documents: [DocumentInput!]!, $replace: Boolean!) {
  done: %s(documents: $documents, replace: $replace) { id operations }
}"""
_REMOVE = "mutation RemoveDocuments($ids: [String!]!) { done: %s(ids: $ids) }"
_all_tenants = click.option("--all-tenants", is_flag=True, help="For all tenants; for platform operators.")


@click.group()
def documents() -> None:
    """Registered documents, which clients name by an id."""


@documents.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@_all_tenants
@click.option("--prune", is_flag=True, help="Remove what is registered and not among these. Apps that are out there may still send it.")
@click.option("--replace", is_flag=True, help="Ids that are registered may get another text.")
@service_options
@json_option
def push(path: Path, all_tenants: bool, prune: bool, replace: bool, target: Target, as_json: bool) -> None:
    """Register the documents of PATH: a folder of .graphql files, one such file, or a client's manifest. A repeat changes nothing."""
    listed = read_documents(path)
    with _client(target, all_tenants=all_tenants) as client:
        there = {found["id"] for found in _listed(client, all_tenants=all_tenants)}
        done = _register(client, listed, all_tenants=all_tenants, replace=replace)
        here = {document["id"] for document in done}
        removed = _remove(client, sorted(there - here), all_tenants=all_tenants) if prune else []
    rows = [(each["id"], each["operations"], "there already" if each["id"] in there else "registered") for each in done]
    _show([*rows, *((name, [], "removed") for name in removed)], as_json)


@documents.command(name="list")
@_all_tenants
@service_options
@json_option
def list_(all_tenants: bool, target: Target, as_json: bool) -> None:
    """What is registered, newest first."""
    role = Role.OPERATOR if all_tenants else Role.READER
    with Client(target.url, target.token_for(role)) as client:
        found = list(_listed(client, all_tenants=all_tenants))
    if as_json:
        show_json(found)
        return
    rows = [(each["id"], ", ".join(each["operations"]), each["createdAt"], each["createdBy"]) for each in found]
    show_table(("id", "operations", "since", "by"), rows)


@documents.command()
@click.argument("ids", nargs=-1, required=True)
@_all_tenants
@service_options
@json_option
def remove(ids: tuple[str, ...], all_tenants: bool, target: Target, as_json: bool) -> None:
    """Remove the documents with these IDS. Exit status 1 where one was not there."""
    with _client(target, all_tenants=all_tenants) as client:
        removed = _remove(client, ids, all_tenants=all_tenants)
    missing = [name for name in dict.fromkeys(ids) if known_id(name) not in removed]
    _show([*((name, [], "removed") for name in removed), *((name, [], "was not there") for name in missing)], as_json)
    if missing:
        raise Refused(f"Not registered: {', '.join(missing)}. What is: turnout documents list{' --all-tenants' if all_tenants else ''}")


def _client(target: Target, *, all_tenants: bool) -> Client:
    return Client(target.url, target.token_for(Role.OPERATOR if all_tenants else Role.ADMIN))


def _listed(client: Client, *, all_tenants: bool) -> Iterator[dict[str, Any]]:
    after, query = None, _LIST % ("platformDocuments" if all_tenants else "documents")
    while True:
        page = client.query(query, after=after)["page"]
        yield from (edge["node"] for edge in page["edges"])
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def _register(client: Client, listed: list[ListedDocument], *, all_tenants: bool, replace: bool) -> list[dict[str, Any]]:
    query = _REGISTER % ("registerPlatformDocuments" if all_tenants else "registerDocuments")
    inputs = [{"text": each.text} if each.id is None else {"id": each.id, "text": each.text} for each in listed]
    try:
        done: list[dict[str, Any]] = client.query(query, documents=inputs, replace=replace)["done"]
    except Refused as error:
        raise Refused(_with_sources(error.message, listed), error.code) from None
    return done


def _with_sources(message: str, listed: list[ListedDocument]) -> str:
    """The service knows ids; people know files and names."""
    for each in listed:
        known = each.id or hashlib.sha256(each.text.encode()).hexdigest()
        message = message.replace(known, each.source) if len(known) >= 32 else message
    return message


def _remove(client: Client, ids: Iterable[str], *, all_tenants: bool) -> list[str]:
    query = _REMOVE % ("removePlatformDocuments" if all_tenants else "removeDocuments")
    removed: list[str] = client.query(query, ids=list(ids))["done"]
    return removed


def _show(rows: list[tuple[str, list[str], str]], as_json: bool) -> None:
    if as_json:
        show_json([{"id": name, "operations": operations, "state": state} for name, operations, state in rows])
    else:
        show_table(("id", "operations", "state"), [(name, ", ".join(operations), state) for name, operations, state in rows])
