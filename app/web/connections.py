"""Which connections a serving process holds, what each of them is waited for, and when that has taken too long.

One sweep for all of them, four times a second, instead of a timer for each: a request that comes and goes costs two dictionary
operations. Times are those of the last sweep, so each deadline is met within a sweep.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from app.errors import AppError
    from app.settings import HttpSettings

SWEEP_S = 0.25
LEAST_BYTES_A_S = 1024  # that a client must take of an answer that waits for it
RESERVED_FILES = 512  # descriptors for everything that is no client: database, spool, models, metrics
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Units in the names; `app/main.py` fills it from the settings. Nobody counts connections of the machine itself and of `trusted`."""

    head_s: float = 10.0  # from a connection's start, or a request's first byte, to the end of the request's head
    idle_s: float = 75.0  # between two requests
    send_s: float = 10.0  # in which a client must have taken something of its answer
    most: int = 16_384  # of one serving process
    most_of_address: int = 1024  # IPv6: of a /64
    head_bytes: int = 65_536
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, http: HttpSettings, files: int) -> Self:
        """As set, and no more connections than there are descriptors for: `files` of the process."""
        return cls(
            head_s=http.head_timeout_s,
            idle_s=http.idle_timeout_s,
            send_s=http.send_timeout_s,
            most=max(1, min(http.max_connections, files - RESERVED_FILES)),
            most_of_address=http.max_connections_per_address,
            head_bytes=http.max_head_bytes,
            trusted=http.trusted_proxies,
        )


class Peer(Protocol):
    """A connection, as the book knows it."""

    def unsent(self) -> int: ...  # bytes of answers that the client has not taken
    def hang_up(self) -> None: ...  # in order, where nothing is unsent; at once otherwise


class Told(Protocol):
    """Counts what was closed or refused, by reason: "head", "idle", "send", "full" or "address"."""

    def connection_closed(self, reason: str) -> None: ...


class Gate(Protocol):
    """Who is refused before anything of a request is looked at but its token."""

    shedding: bool

    def known(self, token: bytes) -> AppError | None: ...


class Connections:
    """The book of one process; for its event loop alone.

    Three lists: `idle` between requests, oldest first; `due` while the rest of a head, or of a body that nobody reads, is awaited;
    `stuck` while an answer waits for the client. Who is idle is nothing else. In none while its request is being answered: the request
    has a deadline of its own.
    """

    def __init__(self, limits: ConnectionLimits, told: Told, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.now = clock()
        self.leaving = False  # answers say that their connection ends
        self.gate: Gate | None = None
        self.idle: OrderedDict[Peer, float] = OrderedDict()
        self.due: dict[Peer, float] = {}
        self.stuck: dict[Peer, tuple[float, int]] = {}
        self._clock = clock
        self._told = told
        self._counted: dict[Peer, str] = {}
        self._of_address: Counter[str] = Counter()
        self._exempt = (*_LOOPBACK, *limits.trusted)
        self.open = 0

    def opened(self, peer: Peer, address: str) -> bool:
        """Whether `peer` may stay. Where there is no room, the connection goes that has been idle for longest; if none is, the new one."""
        self.open += 1
        key = address_key(address, self._exempt)
        if key is not None:
            self._counted[peer] = key
            self._of_address[key] += 1
            if self._of_address[key] > self.limits.most_of_address:
                self._told.connection_closed("address")
                return False
        if self.open > self.limits.most:
            self._told.connection_closed("full")
            if not self.idle:
                return False
            self.idle.popitem(last=False)[0].hang_up()
        self.due[peer] = self.now
        return True

    def closed(self, peer: Peer) -> None:
        """Forgets `peer`."""
        self.open -= 1
        self.idle.pop(peer, None)
        self.due.pop(peer, None)
        self.stuck.pop(peer, None)
        key = self._counted.pop(peer, None)
        if key is not None:
            self._of_address[key] -= 1
            if not self._of_address[key]:
                del self._of_address[key]

    def awaits(self, peer: Peer) -> None:
        """The rest of something must come from `peer`; who says so again gets no more time."""
        self.due.setdefault(peer, self.now)

    def sends(self, peer: Peer) -> None:
        """An answer waits for `peer` to take it."""
        self.stuck[peer] = (self.now, peer.unsent())

    def sweep(self) -> None:
        """Ends what has taken too long. Costs as much as there is to end, and a look at each that is stuck."""
        now = self.now = self._clock()
        self._expire(self.due, now - self.limits.head_s, "head")
        self._expire(self.idle, now - self.limits.idle_s, "idle")
        for peer, (since, left) in list(self.stuck.items()):
            if now - since < self.limits.send_s:
                continue
            unsent = peer.unsent()
            if left - unsent < LEAST_BYTES_A_S * (now - since) and unsent:
                del self.stuck[peer]
                self._told.connection_closed("send")
                peer.hang_up()
            else:
                self.stuck[peer] = (now, unsent)

    def _expire(self, waiting: dict[Peer, float] | OrderedDict[Peer, float], before: float, reason: str) -> None:
        late = []
        for peer, since in waiting.items():
            if since > before:
                break
            late.append(peer)
        for peer in late:
            del waiting[peer]
            self._told.connection_closed(reason)
            peer.hang_up()


def address_key(address: str, exempt: Iterable[IPv4Network | IPv6Network] = _LOOPBACK) -> str | None:
    """Under what connections of `address` are counted: itself, or its /64; None where nobody counts them."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket, say
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        parsed = mapped
    if any(parsed.version == network.version and parsed in network for network in exempt):
        return None
    return str(parsed) if parsed.version == 4 else str(ip_network((int(parsed) >> 64 << 64, 64)))


def raise_file_limit() -> int:
    """The number of descriptors that this process may have open, which is now as high as an ordinary user may set it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
