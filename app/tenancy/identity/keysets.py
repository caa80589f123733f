"""Where an issuer's public keys come from: a file read at start, or its JWKS document fetched over HTTP.

Source: RFC 7517 (JSON web keys).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from base64 import urlsafe_b64decode
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from app.db.retrying import retried
from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from app.kernel.clock import Clock

FETCH_TIMEOUT_S = 2.0
TTL_S = 600.0  # a key that the issuer dropped is trusted no longer than this, while the issuer answers
COOLDOWN_S = 30.0  # between fetches, however many tokens name keys that we do not know
COLD_COOLDOWN_S = 2.0  # ... while we have no key at all
STALE_S = 86_400.0  # how long the last good keys serve while the issuer does not answer
MOST_KEYS = 64
_RSA_BITS = range(2048, 16_385)
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_log = logging.getLogger(__name__)


class VerificationKey(Protocol):
    """A key bound to one algorithm."""

    def verify(self, msg: bytes, sig: bytes) -> bool: ...


class KeySource(Protocol):
    """Finds the key that a token names."""

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """The key, or None where the issuer has no such key; raises Unavailable where that cannot be told now."""
        ...


class KeptDocument(Protocol):
    """A file of this machine's own. Blocks, and raises nothing."""

    def read(self) -> bytes | None:
        """What was written last, by whichever process."""

    def write(self, data: bytes) -> None: ...


class StaticKeys:
    """One key of a file, whatever key id a token names: it is the only one that could have signed."""

    def __init__(self, by_algorithm: Mapping[str, VerificationKey]) -> None:
        self._by_algorithm = by_algorithm

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:  # noqa: ARG002  see the class
        return self._by_algorithm.get(algorithm)


class RemoteKeys:
    """The keys of a JWKS document, fetched when first needed, refreshed by age and by unknown key ids, one fetch at a time.

    `build(jwk, algorithm)` makes the key. While the issuer does not answer, the last good keys serve for a day: also after a start,
    from `kept`.
    """

    def __init__(
        self,
        url: str,
        algorithms: Iterable[str],
        build: Callable[[Any, str], VerificationKey],
        clock: Clock,
        kept: KeptDocument | None = None,
    ) -> None:
        from app.tenancy.identity import fetching  # httpx, for which a process without such an issuer has no use

        self._download, self._is_lost = partial(fetching.download, url, FETCH_TIMEOUT_S), fetching.is_lost
        self._kept = kept
        self._url, self._algorithms, self._build, self._clock = url, tuple(algorithms), build, clock
        self._keys: dict[tuple[str | None, str], VerificationKey] = {}  # by key id and algorithm
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._failed = False
        self._flight: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        if self._age_s() <= TTL_S and (key := self._known(key_id, algorithm)) is not None:
            return key
        await self._refresh()
        key = self._known(key_id, algorithm) if self._age_s() <= STALE_S else None
        if key is None and (self._failed or not self._keys):
            wait_s = max(1.0, self._tried_at + self._cooldown_s() - self._clock.monotonic())
            raise Unavailable("The keys of the token's issuer cannot be fetched at the moment.", retry_after_ms=math.ceil(wait_s * 1000))
        return key

    def _age_s(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    def _cooldown_s(self) -> float:
        return COOLDOWN_S if self._keys else COLD_COOLDOWN_S

    def _known(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        if key_id is not None:
            return self._keys.get((key_id, algorithm))
        # A token may leave the key id out where that leaves no choice.
        fitting = [key for (_, bound), key in self._keys.items() if bound == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _refresh(self) -> None:
        if self._flight is None:
            if self._clock.monotonic() - self._tried_at < self._cooldown_s():
                return
            self._flight = asyncio.create_task(self._fetch())
        await asyncio.shield(self._flight)  # one caller's cancellation is not the others'

    async def _fetch(self) -> None:
        self._tried_at = self._clock.monotonic()
        document: Any = None
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                document = await retried("fetch an issuer's keys", self._download, when=self._is_lost)
            keys = self._read(document)
        except Exception as error:  # noqa: BLE001  whatever network or document do, the last good keys stay
            keys = {}
            _log.warning("fetching the issuer's keys failed", extra={"url": self._url, "error": type(error).__name__})
        finally:
            self._flight = None
        self._failed = not keys
        if keys:
            self._keys, self._fetched_at = keys, self._clock.monotonic()
            await self._keep(document)
        elif not self._keys:
            await self._take_kept()

    async def _keep(self, document: Any) -> None:
        if self._kept is not None:
            said = {"url": self._url, "at": self._clock.time_ms(), "document": document}
            await asyncio.to_thread(self._kept.write, json.dumps(said).encode())

    async def _take_kept(self) -> None:
        """Keys that a process before this one was given. They count as old as they are, so that a day stays a day."""
        raw = None if self._kept is None else await asyncio.to_thread(self._kept.read)
        if raw is None:
            return
        try:
            said = json.loads(raw)
            keys = self._read(said["document"]) if said["url"] == self._url else {}
            age_s = max(0.0, (self._clock.time_ms() - said["at"]) / 1000)
        except Exception as error:  # noqa: BLE001  of another version of the program: it is no key set
            _log.warning("the issuer's kept keys cannot be read", extra={"url": self._url, "error": type(error).__name__})
            return
        if keys and age_s <= STALE_S:
            self._keys, self._fetched_at = keys, self._clock.monotonic() - age_s
            _log.warning("the issuer does not answer: its keys of an earlier run serve", extra={"url": self._url, "age_s": round(age_s)})

    def _read(self, document: Any) -> dict[tuple[str | None, str], VerificationKey]:
        keys: dict[tuple[str | None, str], VerificationKey] = {}
        for jwk in document["keys"][:MOST_KEYS]:
            for algorithm in usable_algorithms(jwk, self._algorithms):
                keys.setdefault((jwk.get("kid"), algorithm), self._build({**jwk, "alg": algorithm}, algorithm))
        return keys


def usable_algorithms(jwk: Any, allowed: Iterable[str]) -> tuple[str, ...]:
    """Those of the `allowed` algorithms whose signatures this key may verify; empty for a key that we take nothing from.

    Never a symmetric key out of a public document, an RSA key below 2048 bits, or a curve that is not the algorithm's.
    """
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return ()
    fitting = [name for name in allowed if jwk.get("alg", name) == name and isinstance(jwk.get("kid", ""), str)]
    if jwk.get("kty") == "RSA" and _bits(jwk.get("n")) in _RSA_BITS:
        return tuple(name for name in fitting if name.startswith("RS"))
    if jwk.get("kty") == "EC":
        return tuple(name for name in fitting if _CURVES.get(name) == jwk.get("crv"))
    return ()


def _bits(number: Any) -> int:
    try:
        return int.from_bytes(urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()
    except (TypeError, ValueError):
        return 0
