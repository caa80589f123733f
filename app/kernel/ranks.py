"""Ranks of processes and threads beside the event loops, as `os.nice` takes them: what takes microseconds goes before what takes
milliseconds, and that before what nobody waits for, where there are not cores enough for all.
"""

from __future__ import annotations

LONG_WORK = 5  # models that serve, batches
SPARE_TIME = 10  # inspections, compilations
