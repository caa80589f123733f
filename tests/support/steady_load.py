"""Clients that ask without a pause over connections that they keep, and count whatever is no answer."""

import asyncio
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class SteadyLoad:
    """Begins when entered; leaving it ends it. `failures` by what came instead of an answer; `answered`: when, monotonic seconds.

    A client does what HTTP/1.1 asks of it: after `Connection: close` it makes a new connection. It repeats nothing.
    """

    port: int
    token: str
    body: bytes
    clients: int = 6
    pause_s: float = 0.02
    failures: Counter = field(default_factory=Counter)
    answered: list[float] = field(default_factory=list)

    def __enter__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)

    async def _all(self):
        await asyncio.gather(*(self._one() for _ in range(self.clients)))

    async def _one(self):
        head = f"POST /graphql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.token}\r\ncontent-type: application/json\r\n"
        request = f"{head}content-length: {len(self.body)}\r\n\r\n".encode() + self.body
        reader = writer = None
        while not self._stop.is_set():
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(request)
                async with asyncio.timeout(30):
                    answer = await reader.readuntil(b"\r\n\r\n")
                    data = await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
                if answer[9:12] == b"200" and b'"errors"' not in data:
                    self.answered.append(time.monotonic())
                else:
                    self.failures[answer[9:12].decode() + data[:200].decode()] += 1
                if b"connection: close" in answer:
                    writer.close()
                    writer = None
            except (OSError, EOFError, TimeoutError) as error:
                self.failures[type(error).__name__] += 1
                if writer is not None:
                    writer.close()
                writer = None
                await asyncio.sleep(0.05)
            await asyncio.sleep(self.pause_s)
        if writer is not None:
            writer.close()
