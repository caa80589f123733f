"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes


def give_back_memory() -> None:
    """The C library keeps what was freed for what is asked for next: now it keeps nothing; only where it can do so. Takes milliseconds.

    Source: malloc_trim of glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
