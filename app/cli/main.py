"""The `turnout` command. Each subcommand's module is imported when it is called, so that `turnout serve` starts fast."""

from __future__ import annotations

import importlib

import click

from app.errors import AppError, ConfigurationError
from app.kernel.version import VERSION

_COMMANDS = {
    "serve": "app.cli.serve:serve",
    "demo": "app.cli.demo:demo",
    "migrate": "app.cli.migrate:migrate",
    "maintain": "app.cli.maintain:maintain",
    "tenant": "app.cli.tenant:tenant",
    "documents": "app.cli.documents:documents",
    "token": "app.cli.token:token",
    "artifact": "app.cli.artifact:artifact",
    "model": "app.cli.model:model",
    "predict": "app.cli.predict:predict",
    "experiment": "app.cli.experiment:experiment",
    "usage": "app.cli.usage:usage",
    "doctor": "app.cli.doctor:doctor",
}


class _LazyGroup(click.Group):
    """Knows its commands by name; also the one place where our errors become exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101  tells mypy
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from None
        except AppError as error:
            raise click.ClickException(f"{error.message} ({error.code})") from None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=None, version=VERSION, prog_name="turnout")
def main() -> None:
    """Turnout: predictions over GraphQL, many tenants, many model versions.

    Exit status: 0 done, 1 refused or failed, 2 wrong usage.
    """


if __name__ == "__main__":
    main(prog_name="turnout")
