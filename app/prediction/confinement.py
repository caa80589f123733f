"""May this artifact be opened on this machine? Where the kernel cannot confine, only those that the demo made here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from app.kernel.home import DEMO_ARTIFACTS

if TYPE_CHECKING:
    from pathlib import Path

    from app.prediction.runtimes.host import ModelHost


class ConfinementGate:
    """Asks the model host what the kernel can do; remembers a yes."""

    def __init__(self, host: ModelHost, home: Path) -> None:
        self._host = host
        self._demo_artifacts = home / DEMO_ARTIFACTS
        self._confined = False

    async def refusal(self, digest: str) -> str | None:
        """Why the artifact may not be opened; None where it may."""
        if not self._confined:
            self._confined = (await self._host.confinement()).confined
        if self._confined or digest in await asyncio.to_thread(self._made_here):
            return None
        return (
            "This machine's kernel cannot confine a model (Landlock and seccomp are needed), so only the models of the demo, "
            "made on this machine, are opened. `turnout doctor` says what is missing."
        )

    def _made_here(self) -> set[str]:
        try:
            return set(orjson.loads(self._demo_artifacts.read_bytes()))
        except (OSError, ValueError, TypeError):
            return set()
