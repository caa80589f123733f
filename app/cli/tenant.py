"""`turnout tenant ...`: for operators of the platform."""

from __future__ import annotations

import click

from app.cli.client import Client
from app.cli.options import Target, json_option, service_options
from app.cli.output import show_json, show_table
from app.kernel.context import Role

CREATE_TENANT = """mutation CreateTenant($input: CreateTenantInput!) {
  createTenant(input: $input) { id name status createdAt }
}"""


@click.group()
def tenant() -> None:
    """Tenants of the platform."""


@tenant.command()
@click.argument("id_", metavar="ID")
@click.option("--name", required=True, help="The name that people see.")
@service_options
@json_option
def create(id_: str, name: str, target: Target, as_json: bool) -> None:
    """Create the tenant ID (operators only)."""
    with Client(target.url, target.token_for(Role.OPERATOR)) as client:
        made = client.query(CREATE_TENANT, input={"id": id_, "name": name})["createTenant"]
    if as_json:
        show_json(made)
    else:
        show_table(("tenant", "name", "status", "created"), [(made["id"], made["name"], made["status"], made["createdAt"])])
