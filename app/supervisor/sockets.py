"""Where the processes of one machine meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db.embedded.paths import runtime_dir
from app.kernel.home import MODEL_HOST_SOCKET

if TYPE_CHECKING:
    from pathlib import Path


def model_host_socket(home: Path) -> Path:
    """The model host's Unix socket: the same path in every process of this TURNOUT_HOME, below 100 bytes."""
    return runtime_dir(home) / MODEL_HOST_SOCKET
