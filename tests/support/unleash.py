"""A real Unleash server for tests: one a test process, with a database of its own on the tests' PostgreSQL server."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.db.privileges import DatabaseRole
from tests.support.database import execute
from tests.support.service import free_port
from tools.unleash.server import Credentials, UnleashServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.db.embedded.server import EmbeddedPostgres

_FLAGS = "/api/admin/projects/default/features"
_ENVIRONMENT = "development"
_SEEN_WITHIN_S = 20.0


class RealUnleash(UnleashServer):
    """With what a test does to flags. A change is seen by clients about a second later: `seen` waits for that."""

    def segment(self, name: str, *constraints: Any) -> int:
        number: int = self.call("POST", "/api/admin/segments", {"name": name, "constraints": list(constraints)})["id"]
        return number

    def flag(self, name: str, *strategies: dict[str, Any], on: bool = True, parent: dict[str, Any] | None = None) -> None:
        """A flag as `tests.support.unleash_features` writes its strategies."""
        self.call("POST", _FLAGS, {"name": name, "type": "experiment"})
        for number, strategy in enumerate(strategies):
            self.call("POST", f"{_FLAGS}/{name}/environments/{_ENVIRONMENT}/strategies", {**_accepted(strategy), "sortOrder": number})
        if parent is not None:
            self.call("POST", f"{_FLAGS}/{name}/dependencies", parent)
        if on:
            self.switch(name, on=True)

    def flag_variants(self, name: str, *variants: Any) -> None:
        self.call("PUT", f"{_FLAGS}/{name}/environments/{_ENVIRONMENT}/variants", _variable(list(variants)))

    def switch(self, name: str, *, on: bool) -> None:
        self.call("POST", f"{_FLAGS}/{name}/environments/{_ENVIRONMENT}/{'on' if on else 'off'}")

    def features(self) -> dict[str, Any]:
        """As a backend SDK sees them."""
        found: dict[str, Any] = self.call("GET", "/api/client/features", token=self.credentials.backend)
        return found

    def frontend(self, context: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The flags that are on for this context, by name, as the server itself evaluates them."""
        answer = self.call("POST", "/api/frontend", {"context": context}, token=self.credentials.frontend)
        return {toggle["name"]: toggle for toggle in answer["toggles"]}

    def seen(self, holds: Callable[[dict[str, Any]], object]) -> None:
        """Returns when it holds for the features by name."""
        end = time.monotonic() + _SEEN_WITHIN_S
        while time.monotonic() < end:
            if holds({feature["name"]: feature for feature in self.features()["features"]}):
                return
            time.sleep(0.05)
        raise AssertionError("the server did not hand the change out")


def _accepted(strategy: dict[str, Any]) -> dict[str, Any]:
    return {**strategy, "variants": _variable(list(strategy["variants"]))}


def _variable(variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The server wants one variant to take what the fixed ones leave of a thousand."""
    return [{**each, "weightType": "fix" if number else "variable"} for number, each in enumerate(variants)]


@pytest.fixture(scope="session")
def unleash(embedded_postgres: EmbeddedPostgres) -> Iterator[RealUnleash]:
    """A healthy server without flags; tests make flags of their own names and leave others' alone."""
    execute(embedded_postgres._superuser_url(), f"create database unleash owner {DatabaseRole.OWNER}")
    folder = Path(tempfile.mkdtemp(prefix="turnout-unleash-"))
    # Variants of a flag itself: servers that had such flags keep them, new ones make none unless told to.
    legacy = {"UNLEASH_EXPERIMENTAL_ENABLE_LEGACY_VARIANTS": "true"}
    database = embedded_postgres.url(DatabaseRole.OWNER, "unleash")
    server = RealUnleash(database, free_port(), Credentials.made(), folder, **legacy)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        execute(embedded_postgres._superuser_url(), "drop database unleash with (force)")
        shutil.rmtree(folder)
