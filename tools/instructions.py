"""Instructions that the calling thread has executed outside the kernel: what hardly moves however busy the machine is.

Source: perf_event_open(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = {"x86_64": 298, "aarch64": 241}  # of the system call
_HARDWARE, _INSTRUCTIONS = 0, 1
_SIZE = 112  # of the structure, version 5
_EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 5, 1 << 6


def counter() -> Callable[[], int] | None:
    """What tells the number so far; None where this machine does not count, or does not let us."""
    number = _NUMBERS.get(platform.machine())
    if number is None or not hasattr(os, "fork"):
        return None
    attributes = struct.pack("=IIQQQQQ", _HARDWARE, _SIZE, _INSTRUCTIONS, 0, 0, 0, _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR).ljust(
        _SIZE, b"\0"
    )
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.syscall(number, attributes, 0, -1, -1, 0)
    if descriptor < 0:
        return None

    def count() -> int:
        return int.from_bytes(os.read(descriptor, 8), "little")

    return count
