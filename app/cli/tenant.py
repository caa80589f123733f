"""`turnout tenant ...`: for operators of the platform."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from app.cli import tenants
from app.cli.client import Client
from app.cli.options import Target, json_option, load_settings, service_options
from app.cli.output import note, show_json, show_table
from app.kernel.context import Role

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
_id = click.argument("id_", metavar="ID")
_reason = click.option("--reason", required=True, help="Why; kept in the tenant's audit log.")
_LIMITS = {
    "requestsPerSecond": "Requests a second, over time.",
    "burst": "Requests at once, after a quiet moment.",
    "rowsPerDay": "Predicted rows in a UTC day.",
    "maxModels": "Models.",
    "maxArtifactBytes": "Bytes of one artifact.",
    "maxStoredBytes": "Bytes of all artifacts.",
    "concurrency": "Predictions under way at once.",
}

_DURABILITIES = ["DURABLE", "DURABLE_FSYNC", "BUFFERED", "DATABASE"]


@click.group()
def tenant() -> None:
    """Tenants of the platform."""


@tenant.command()
@_id
@click.option("--name", required=True, help="The name that people see.")
@service_options
@json_option
def create(id_: str, name: str, target: Target, as_json: bool) -> None:
    """Create the tenant ID (operators only)."""
    with _operator(target) as client:
        _show([tenants.create(client, id_, name)], as_json, one=True)


@tenant.command(name="list")
@service_options
@json_option
def list_(target: Target, as_json: bool) -> None:
    """All tenants but erased ones, newest first."""
    with _operator(target) as client:
        _show(list(tenants.listed(client)), as_json)


@tenant.command()
@_id
@service_options
@json_option
def show(id_: str, target: Target, as_json: bool) -> None:
    """Limits, settings and names of the tenant ID."""
    with _operator(target) as client:
        _show_whole(tenants.show(client, id_), as_json)


def _limit_options(command: F) -> F:
    for name, what in reversed(_LIMITS.items()):
        option = "--" + "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)
        command = click.option(option, name, type=int, help=what)(command)
    return command


@tenant.command()
@_id
@_limit_options
@service_options
@json_option
def limits(id_: str, target: Target, as_json: bool, **given: int | None) -> None:
    """Change limits of the tenant ID. What is left out stays."""
    with _operator(target) as client:
        _show_whole(tenants.limits(client, id_, _sent(given)), as_json)


@tenant.command()
@_id
@click.option("--durability", type=click.Choice(_DURABILITIES, case_sensitive=False), help="Of answers.")
@click.option("--capture-inputs/--no-capture-inputs", "captureInputs", default=None, help="Keep features, sealed under the tenant's key.")
@click.option("--retention-days", "retentionDays", type=int, help="How long predictions are kept.")
@click.option("--outcome-window-days", "outcomeWindowDays", type=int, help="How long after its exposure a unit's outcomes count.")
@click.option("--holdout-percent", "holdoutPercent", type=float, help="Of units, kept out of every experiment.")
@service_options
@json_option
def settings(id_: str, target: Target, as_json: bool, **given: Any) -> None:
    """Change settings of the tenant ID. What is left out stays."""
    with _operator(target) as client:
        _show_whole(tenants.settings(client, id_, _sent(given)), as_json)


@tenant.command()
@_id
@_reason
@service_options
@json_option
def suspend(id_: str, reason: str, target: Target, as_json: bool) -> None:
    """Refuse every request of the tenant ID. It counts on every replica at once; nothing is lost."""
    with _operator(target) as client:
        _show([tenants.suspend(client, id_, reason)], as_json, one=True)


@tenant.command()
@_id
@click.option("--reason", help="Why; kept in the tenant's audit log.")
@service_options
@json_option
def resume(id_: str, reason: str | None, target: Target, as_json: bool) -> None:
    """Have the tenant ID answer again."""
    with _operator(target) as client:
        _show([tenants.resume(client, id_, reason)], as_json, one=True)


@tenant.command()
@_id
@click.option("--subject", help="All tokens of this caller that were issued until now.")
@click.option("--jti", help="The one token with this id.")
@_reason
@service_options
def revoke(id_: str, subject: str | None, jti: str | None, reason: str, target: Target) -> None:
    """End tokens of the tenant ID, on every replica at once."""
    if (subject is None) == (jti is None):
        raise click.UsageError("Exactly one of --subject and --jti says which tokens end.")
    with _operator(target) as client:
        tenants.revoke(client, id_, subject, jti, reason)
    note(f"revoked: {'the token ' + jti if jti else 'all tokens of ' + str(subject) + ' issued until now'}")


def _name_options(command: F) -> F:
    command = click.option("--external-id", required=True, help="What its tokens say in the tenant claim.")(command)
    return click.option("--issuer", required=True, help="As in TURNOUT_JWT_ISSUERS.")(command)


@tenant.command(name="map")
@_id
@_name_options
@service_options
@json_option
def map_(id_: str, issuer: str, external_id: str, target: Target, as_json: bool) -> None:
    """Have an issuer's name mean the tenant ID."""
    with _operator(target) as client:
        _show_whole(tenants.map_name(client, id_, issuer, external_id), as_json)


@tenant.command()
@_id
@_name_options
@service_options
@json_option
def unmap(id_: str, issuer: str, external_id: str, target: Target, as_json: bool) -> None:
    """Have an issuer's name mean the tenant ID no longer."""
    with _operator(target) as client:
        _show_whole(tenants.unmap_name(client, id_, issuer, external_id), as_json)


@tenant.command()
@_id
@click.option("--confirm", required=True, metavar="ID", help="The id once more: nothing brings the tenant back.")
@_reason
@service_options
@json_option
def erase(id_: str, confirm: str, reason: str, target: Target, as_json: bool) -> None:
    """Erase the tenant ID for good: its key at once, then its rows."""
    with _operator(target) as client:
        done = tenants.erase(client, id_, confirm, reason)
    if as_json:
        show_json(done)
    else:
        show_table(("tenant", "erased", "rows gone so far"), [(id_, done["at"], done["rows"])])


@tenant.command()
@_id
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write; must not be there yet.")
def export(id_: str, out: Path) -> None:
    """Write all rows of the tenant ID as JSON lines. Reads the database of this TURNOUT_HOME."""
    from app.cli.tenant_export import export_tenant

    counts = export_tenant(load_settings(), id_, out)
    note(f"{sum(counts.values()):,} rows of {id_} in {out}")


def _operator(target: Target) -> Client:
    return Client(target.url, target.token_for(Role.OPERATOR))


def _sent(given: dict[str, Any]) -> dict[str, Any]:
    """What was said on the command line; saying nothing is a mistake."""
    sent = {name: value for name, value in given.items() if value is not None}
    if not sent:
        raise click.UsageError("Nothing to change: name an option. `turnout tenant show ID` shows what is.")
    return sent


def _show(found: list[dict[str, Any]], as_json: bool, *, one: bool = False) -> None:
    if as_json:
        show_json(found[0] if one else found)
        return
    rows = [(each["id"], each["name"], each["status"], each["createdAt"]) for each in found]
    show_table(("tenant", "name", "status", "created"), rows)


def _show_whole(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    plain = [(name, found[name]) for name in ("id", "name", "status", "createdAt")]
    inner = [(name, value) for part in ("limits", "settings") for name, value in cast("dict[str, Any]", found[part]).items()]
    names = [("name at " + each["issuer"], each["externalId"]) for each in found["names"]]
    show_table(("", "value"), [*plain, *inner, *names])
