"""Which machine this is, as far as limits are concerned."""

from __future__ import annotations

import socket
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def machine_name(home: Path) -> str:
    """What the processes of one TURNOUT_HOME have in common in their names; another on the same host is another machine."""
    return f"{socket.gethostname()}-{blake2b(str(home).encode(), digest_size=3).hexdigest()}"
