"""Whether the last good state takes the place of the first look, which waits for a database that may not be there.

One that refuses is found absent at once; one that takes connections and says nothing, only when its timeouts end. What is on the disk is
read beside that wait, and serves before its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.prediction.last_good.reading import Kept

SILENT_S = 0.25  # after which the disk is read
PATIENCE_S = 1.0  # after which it serves: a database some hundred milliseconds away has made a connection by then


async def instead(
    look: asyncio.Task[None],
    is_there: Callable[[], bool],
    read: Callable[[], Kept | None],
    *,
    silent_s: float = SILENT_S,
    patience_s: float = PATIENCE_S,
) -> Kept | None:
    """What to serve by, where the database does not answer; None where `look` ended well, or where nothing may be served by.

    `is_there`: whether a connection to the database is up; then `look` may take as long as it likes, for there may be much to read. `read`:
    blocks. Where this answers early, `look` is cancelled. Raises what `look` does, but for Unavailable.
    """
    kept = None
    await asyncio.wait([look], timeout=silent_s)
    if not look.done() and not is_there():
        kept = await asyncio.to_thread(read)
        await asyncio.wait([look], timeout=patience_s - silent_s)
        if kept is not None and not look.done() and not is_there():
            look.cancel()
            await asyncio.wait([look])
            if look.cancelled():
                return kept
    try:
        await look
    except Unavailable:
        return kept or await asyncio.to_thread(read)
    return None
