"""What commands share: the environment's one door, the service's address, the token."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import click

from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.kernel.context import Role

F = TypeVar("F", bound="Callable[..., Any]")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def environ() -> Mapping[str, str]:
    return os.environ  # noqa: TID251  the command line is an edge: everything below it is handed what it needs


def load_settings(**overrides: str | None) -> Settings:
    """The settings of this process; `overrides` are variables that an option on the command line beats."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return Settings.from_env({**environ(), **given})


@dataclass(frozen=True, slots=True)
class Target:
    """Which service, as whom."""

    url: str
    token: str | None
    tenant: str | None  # mint a development token for this tenant

    def token_for(self, *roles: Role) -> str:
        """The token given, else one from this machine's development key; raises click.UsageError that shows how to get one."""
        if self.token:
            return self.token
        operator = [role.value for role in roles] == ["OPERATOR"]
        if self.tenant is None and not operator:
            raise click.UsageError(f"A token is needed: --token or TURNOUT_TOKEN. {_how_to_mint(roles)} Or: --tenant TENANT.")
        settings = load_settings()
        if urlsplit(self.url).hostname not in _LOOPBACK or not settings.development:
            raise click.UsageError(f"A token is needed: --token or TURNOUT_TOKEN. {_how_to_mint(roles)}")
        from app.cli.minting import mint

        return mint(settings, self.tenant, "turnout-cli", tuple(roles), ttl_s=300)


url_option = click.option("--url", envvar="TURNOUT_URL", help="The service; TURNOUT_URL does the same. Default: that of TURNOUT_HOME.")


def service_options(command: F) -> F:
    """--url, --token and --tenant as one `target` argument."""

    @url_option
    @click.option("--token", envvar="TURNOUT_TOKEN", help="Bearer token; TURNOUT_TOKEN does the same.")
    @click.option("--tenant", help="In place of a token on a development machine: act for this tenant with its development key.")
    @functools.wraps(command)
    def wrapper(url: str | None, token: str | None, tenant: str | None, **rest: Any) -> Any:
        target = Target((url or local_url(load_settings())).rstrip("/"), None if tenant else token, tenant)
        return command(target=target, **rest)

    return cast("F", wrapper)


json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs in place of a table for people.")


def local_url(settings: Settings) -> str:
    """Where the service of this machine listens: as its parent wrote it down, else as the settings say."""
    try:
        written = (settings.home / "run" / "url").read_text().strip()
    except OSError:
        written = ""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.http.host, settings.http.host)  # noqa: S104  compared, not bound
    return written or f"http://{host}:{settings.http.port}"


def parse_duration(text: str) -> int:
    """'90s', '15m', '1h', '1d' as seconds; raises click.BadParameter for anything else."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    if unit and text.isascii() and text[:-1].isdecimal() and int(text[:-1]) > 0:
        return int(text[:-1]) * unit
    raise click.BadParameter(f"{text!r} is no duration: write a number and s, m, h or d, like 1h.")


def _how_to_mint(roles: tuple[Role, ...]) -> str:
    names = " ".join(f"--role {role.value}" for role in roles)
    return f'On a development machine: export TURNOUT_TOKEN="$(turnout token --tenant TENANT --subject me {names} --ttl 1h)".'
