"""`turnout token`: a token of this machine's development issuer."""

from __future__ import annotations

import click

from app.cli.minting import mint
from app.cli.options import load_settings, parse_duration
from app.kernel.context import Role


@click.command()
@click.option("--tenant", help="The tenant that it speaks for; operators may leave it out.")
@click.option("--subject", required=True, help="Who it is for: a person or a program.")
@click.option("--role", "roles", required=True, multiple=True, type=click.Choice([r.value for r in Role], case_sensitive=False))
@click.option("--ttl", default="1h", show_default=True, help="How long it is valid: 90s, 15m, 1h; a day at most.")
def token(tenant: str | None, subject: str, roles: tuple[str, ...], ttl: str) -> None:
    """Print a development token, and nothing else, on standard output."""
    given = tuple(Role(role.upper()) for role in roles)
    if tenant is None and set(given) != {Role.OPERATOR}:
        raise click.UsageError("Missing option '--tenant': every role but OPERATOR acts inside a tenant.")
    click.echo(mint(load_settings(), tenant, subject, given, ttl_s=parse_duration(ttl)))
