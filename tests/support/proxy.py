"""A proxy between a client and a server, for faults between them: delayed, frozen, refused, cut, also in the middle of a COMMIT.

with Proxy.of_database(urls.runtime) as proxy:
    url = proxy.url(urls.runtime)           # the same role and database, by way of the proxy; any role of that server
    proxy.delay_s = 0.2                     # each burst of the client's takes that much longer
    proxy.freeze(); proxy.thaw()            # bytes wait in both directions, connections stay open
    proxy.refuse(); proxy.accept()          # new connections are closed at once
    proxy.cut()                             # all connections, now
    proxy.cut_at("commit", Cut.AFTER)       # the next COMMIT is done by the server, and nobody hears of it
    proxy.cut_at("commit", Cut.BEFORE)      # ... the server never hears of it
    proxy.cut_at("commit", Cut.AFTER, having="into promotions")  # ... of a transaction in which that was said
    proxy.cuts                              # how many of the planned cuts came about

`Proxy(("127.0.0.1", 6379))` stands before any TCP server, at `proxy.port`; planned cuts are for PostgreSQL alone.
It runs in a thread of its own, so tests with and without an event loop may use it, and its methods from any thread.
Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Address = tuple[str, int] | Path  # of a TCP server, or its socket file
_CHUNK = 256 * 1024
_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102


class Cut(Enum):
    BEFORE = "before the server heard it"
    AFTER = "after it was done, before the client heard so"


class Proxy:
    """Stands before `upstream`; listens at `port` of 127.0.0.1 and at a socket file as PostgreSQL's clients look for it."""

    def __init__(self, upstream: Address, *, postgres: bool = False) -> None:
        self._upstream, self._postgres = upstream, postgres
        self.delay_s = 0.0
        self.port = 0
        self.cuts = 0
        self.connections = 0  # accepted since the start
        self._plan: list[tuple[bytes, bytes, Cut]] = []
        self._refusing = False
        self._pairs: set[_Pair] = set()
        self._folder = Path(tempfile.mkdtemp(prefix="turnout-proxy-"))
        self._folder.chmod(0o755)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @classmethod
    def of_database(cls, url: str) -> Proxy:
        """Before the PostgreSQL server of `url`."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        port = int(query.get("port", [str(parts.port or 5432)])[0])
        host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
        return cls(Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host, port), postgres=True)

    def url(self, url: str) -> str:
        """`url`, a database's of the same server, by way of here."""
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        place = f"host={quote(str(self._folder), safe='/')}&port={self.port}"
        return urlunsplit(parts._replace(netloc=f"{login}@" if login else "", query=place))

    def freeze(self) -> None:
        """From now on no byte passes, in either direction; nobody is told."""
        self._do(self._set(self._open.clear))

    def thaw(self) -> None:
        self._do(self._set(self._open.set))

    def refuse(self) -> None:
        """New connections are closed at once; those there are stay."""
        self._refusing = True

    def accept(self) -> None:
        self._refusing = False

    def cut(self) -> None:
        """Every connection, now."""
        self._do(self._set(lambda: [pair.cut() for pair in tuple(self._pairs)]))

    def cut_at(self, words: str, cut: Cut, times: int = 1, *, having: str = "") -> None:
        """The next `times` statements whose text holds `words` (capitals do not matter) lose their connection.

        `having`: only where a statement with these words came before it in the same transaction.
        """
        self._plan += [(words.lower().encode(), having.lower().encode(), cut)] * times

    def forget_cuts(self) -> None:
        """What is planned and did not come about is not planned any more."""
        self._plan.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def planned(self, text: bytes, before: list[bytes]) -> Cut | None:
        """Whether a statement of this text, after those of its transaction, loses its connection, and when; the plan is one shorter then."""
        for number, (words, having, cut) in enumerate(self._plan):
            if words in text and (not having or any(having in earlier for earlier in before)):
                del self._plan[number]
                return cut
        return None

    async def passage(self) -> None:
        """Returns once bytes may pass."""
        await self._open.wait()

    def _do(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(self, change: Callable[[], object]) -> None:
        change()

    async def _listen(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        by_port = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = by_port.sockets[0].getsockname()[1]
        file = self._folder / f".s.PGSQL.{self.port}"
        self._servers = [by_port, await asyncio.start_unix_server(self._accepted, file)]
        file.chmod(0o777)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        await self._open.wait()
        try:
            if isinstance(self._upstream, Path):
                server = await asyncio.open_unix_connection(self._upstream)
            else:
                server = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(self, (reader, writer), server, postgres=self._postgres)
        self._pairs.add(pair)
        try:
            with contextlib.suppress(OSError, EOFError):
                await pair.run()
        finally:
            self._pairs.discard(pair)
            pair.cut()


class _Pair:
    """One connection of a client's and the one behind it."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        postgres: bool,
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._postgres = postgres
        self._statements: dict[bytes, bytes] = {}  # names of prepared ones
        self._said: list[bytes] = []  # in the transaction that is under way
        self._silent = False  # what the server says now is lost

    def cut(self) -> None:
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    async def run(self) -> None:
        """Until either side is gone."""
        understood = self._postgres and await self._greet()
        ways = [
            asyncio.ensure_future(self._forth() if understood else self._plain(self._from_client, self._to_server, forth=True)),
            asyncio.ensure_future(self._back() if understood else self._plain(self._from_server, self._to_client, forth=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _greet(self) -> bool:
        """Passes on how the client begins; whether messages follow. Encryption is declined: nobody could read along."""
        while True:
            head = await self._from_client.readexactly(8)
            code = int.from_bytes(head[4:])
            if code in {_SSL, _GSS}:
                self._to_client.write(b"N")
                continue
            await self._send(self._to_server, head + await self._from_client.readexactly(int.from_bytes(head[:4]) - 8))
            return code != _CANCEL

    async def _plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, forth: bool) -> None:
        while data := await reader.read(_CHUNK):
            await self._pause(forth=forth)
            await self._send(writer, data)

    async def _forth(self) -> None:
        buffer = bytearray()
        while data := await self._from_client.read(_CHUNK):
            buffer += data
            await self._pause(forth=True)
            for message in _messages(buffer):
                text = self._text(message)
                cut = None if text is None else self._heard(text.lower())
                if cut is Cut.BEFORE:
                    self._proxy.cuts += 1
                    return
                self._silent = self._silent or cut is Cut.AFTER
                self._to_server.write(message)
            await self._to_server.drain()

    def _heard(self, text: bytes) -> Cut | None:
        if text.startswith((b"begin", b"start transaction")):
            self._said.clear()
        cut = self._proxy.planned(text, self._said)
        self._said = [*self._said[-99:], text]
        return cut

    async def _back(self) -> None:
        buffer = bytearray()
        while data := await self._from_server.read(_CHUNK):
            buffer += data
            await self._pause(forth=False)
            for message in _messages(buffer):
                if not self._silent:
                    self._to_client.write(message)
                elif message[:1] == b"Z":  # ready for the next one: it was done
                    self._proxy.cuts += 1
                    return
            await self._to_client.drain()

    def _text(self, message: bytes) -> bytes | None:
        """The text of the statement that `message` has done; None where it has none done."""
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, _, rest = body.partition(b"\0")
            self._statements[name] = rest.partition(b"\0")[0]
        elif kind == b"Q":
            return body
        elif kind == b"B":
            return self._statements.get(body.partition(b"\0")[2].partition(b"\0")[0])
        return None

    async def _pause(self, *, forth: bool) -> None:
        if forth and self._proxy.delay_s:
            await asyncio.sleep(self._proxy.delay_s)
        await self._proxy.passage()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()


def _messages(buffer: bytearray) -> list[bytes]:
    """The whole messages at the beginning of `buffer`, which loses them: a byte for the kind, then the length of all that follows."""
    found = []
    while len(buffer) >= 5 and len(buffer) > (length := int.from_bytes(buffer[1:5])):
        found.append(bytes(buffer[: length + 1]))
        del buffer[: length + 1]
    return found
