"""A process that writes records until it is killed, and prints an id only once its record was acknowledged.

python -m tests.integration.journal.writer SPOOL TENANT DURABILITY [--limit-bytes N]
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path
from uuid import UUID

from app.errors import LogUnavailable
from app.journal.spool import Spool
from app.journal.types import Durability
from app.kernel.clock import SystemClock
from tests.unit.journal.records import Records


async def write(spool: Spool, records: Records, durability: Durability) -> None:
    while True:
        record = records.one()
        os.write(1, f"try {record.id}\n".encode())
        try:
            await spool.append(record, durability)
        except LogUnavailable:
            os.write(1, f"refused {record.id}\n".encode())
            return
        os.write(1, f"ok {record.id}\n".encode())


async def main() -> None:
    folder, tenant, durability, *limit = sys.argv[1:]
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]), int(limit[0])))
    clock = SystemClock()
    spool = Spool(Path(folder), 1 << 30, clock, segment_bytes=20_000_000 if limit else 20_000)
    await asyncio.gather(*(write(spool, Records(clock, UUID(tenant)), Durability(durability)) for _ in range(4)))
    spool.close()


if __name__ == "__main__":
    asyncio.run(main())
