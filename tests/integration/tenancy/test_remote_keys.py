from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from app.errors import Unauthenticated, Unavailable
from app.tenancy.identity.keysets import COOLDOWN_S, STALE_S, TTL_S, RemoteKeys
from app.tenancy.identity.verifier import TrustedIssuer, Verifier, build_key
from app.tenancy.keys import MasterKey
from app.tenancy.sealed_files import SealedFolder
from tests.support import tokens
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.integration


class IdentityProvider:
    """A real HTTP server with a key document that a test changes, breaks or holds back."""

    def __init__(self) -> None:
        self.document: Any = {"keys": [tokens.jwk()]}
        self.status = "200 OK"
        self.asked = 0
        self.heard = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        self.heard.set()
        await self.open.wait()
        body = self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()
        head = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()


class Setting:
    def __init__(self, provider: IdentityProvider, url: str) -> None:
        self.provider, self.clock = provider, ManualClock()
        issuer = tokens.issuer(jwks_url=url)
        self.url, self.issuer = url, issuer
        self._serial = 0
        self.restart()

    def restart(self, folder: Path | None = None) -> None:
        """As a process that starts now, with what another one kept in `folder`."""
        kept = None if folder is None else SealedFolder(folder, MasterKey(bytes(32)).box("last-good")).file("keys")
        self.keys = RemoteKeys(self.url, self.issuer.algorithms, build_key, self.clock, kept)
        self.verifier = Verifier([TrustedIssuer(self.issuer, self.keys)], self.clock)

    def token(self, key: str = tokens.KEY_ID, signer: str | None = None) -> str:
        """A token that was never seen before, good for an hour of this clock."""
        now = self.clock.time_ms() // 1000
        self._serial += 1
        claims = tokens.claims(iat=now, exp=now + 3600, jti=self._serial)
        return tokens.token({**tokens.HEADER, "kid": key}, claims, tokens.rsa_signer(signer or key))

    async def accepts(self, token: str) -> bool:
        return (await self.verifier.verify(token)).tenant == "acme"


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with running(IdentityProvider()) as setting:
        yield setting


@asynccontextmanager
async def running(provider: IdentityProvider) -> AsyncIterator[Setting]:
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Setting(provider, f"http://127.0.0.1:{port}/jwks")


async def test_the_keys_are_fetched_once_for_many_callers_at_once(setting: Setting) -> None:
    assert all(await asyncio.gather(*(setting.accepts(setting.token()) for _ in range(50))))
    assert setting.provider.asked == 1


async def test_five_hundred_unknown_key_ids_cost_one_fetch(setting: Setting) -> None:
    assert await setting.accepts(setting.token())
    setting.clock.advance(COOLDOWN_S)
    strangers = [setting.token(key=f"x{number}", signer="stranger") for number in range(500)]
    outcomes = await asyncio.gather(*map(setting.verifier.verify, strangers), return_exceptions=True)
    assert {getattr(outcome, "reason", None) for outcome in outcomes} == {"key"}
    assert setting.provider.asked == 2


async def test_a_rotated_key_is_accepted_at_its_first_use(setting: Setting) -> None:
    assert await setting.accepts(setting.token())
    setting.provider.document = {"keys": [tokens.jwk(), tokens.jwk("k2")]}
    setting.clock.advance(COOLDOWN_S)
    assert await setting.accepts(setting.token("k2"))
    assert setting.provider.asked == 2


async def test_unknown_key_ids_cannot_make_us_ask_more_often_than_the_cooldown(setting: Setting) -> None:
    assert await setting.accepts(setting.token())
    for _ in range(3):
        setting.clock.advance(COOLDOWN_S / 3 - 0.001)
        with pytest.raises(Unauthenticated):
            await setting.verifier.verify(setting.token("nope", signer="stranger"))
    assert setting.provider.asked == 1


async def test_a_key_that_the_issuer_withdrew_is_refused_after_the_ttl(setting: Setting) -> None:
    assert await setting.accepts(setting.token())
    setting.provider.document = {"keys": [tokens.jwk("k2")]}
    setting.clock.advance(TTL_S)
    assert await setting.accepts(setting.token())
    setting.clock.advance(0.001)
    with pytest.raises(Unauthenticated) as caught:
        await setting.verifier.verify(setting.token())
    assert caught.value.reason == "key"


@pytest.mark.parametrize(
    ("status", "document"),
    [
        ("500 Oops", {"keys": [tokens.jwk("k2")]}),
        ("302 Found", b""),
        ("200 OK", b"not json"),
        ("200 OK", b"\xff\xfe"),
        ("200 OK", {}),
        ("200 OK", []),
        ("200 OK", {"keys": {}}),
        ("200 OK", {"keys": []}),
        ("200 OK", {"keys": [7, None, {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}]}),
        ("200 OK", {"keys": [tokens.jwk("k2", n="!!!")]}),
        ("200 OK", b"[" * 200_000),
        ("200 OK", b" " * 600_000),
    ],
)
async def test_while_the_issuer_is_down_or_talks_nonsense_the_last_good_keys_serve_for_a_day(
    setting: Setting, status: str, document: Any
) -> None:
    assert await setting.accepts(setting.token())
    setting.provider.status, setting.provider.document = status, document
    setting.clock.advance(TTL_S + 1)
    assert await setting.accepts(setting.token())
    assert setting.provider.asked == 2
    setting.clock.advance(STALE_S - TTL_S - 1)
    assert await setting.accepts(setting.token())
    setting.clock.advance(0.001)
    with pytest.raises(Unavailable):
        await setting.verifier.verify(setting.token())


async def test_without_any_key_the_answer_is_try_again_not_a_bad_token(setting: Setting) -> None:
    setting.provider.status = "503 Unavailable"
    with pytest.raises(Unavailable) as caught:
        await setting.verifier.verify(setting.token())
    assert caught.value.details == {"retry_after_ms": 2000}
    setting.provider.status = "200 OK"
    setting.clock.advance(2)
    assert await setting.accepts(setting.token())


async def test_a_caller_who_gives_up_does_not_spoil_the_fetch_for_the_others(setting: Setting) -> None:
    setting.provider.open.clear()
    impatient, patient = (asyncio.create_task(setting.verifier.verify(setting.token())) for _ in range(2))
    await setting.provider.heard.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    setting.provider.open.set()
    assert (await patient).tenant == "acme"
    assert setting.provider.asked == 1


async def test_a_token_without_a_key_id_is_good_where_there_is_but_one_key(setting: Setting) -> None:
    now = setting.clock.time_ms() // 1000
    token = tokens.token({"alg": "RS256"}, tokens.claims(iat=now, exp=now + 60))
    assert await setting.accepts(token)
    setting.provider.document = {"keys": [tokens.jwk(), tokens.jwk("k2")]}
    setting.clock.advance(TTL_S + 1)
    now = setting.clock.time_ms() // 1000
    with pytest.raises(Unauthenticated):
        await setting.verifier.verify(tokens.token({"alg": "RS256"}, tokens.claims(iat=now, exp=now + 60)))


async def test_of_a_long_document_the_first_64_keys_count(setting: Setting) -> None:
    fillers = [tokens.jwk("k2", kid=f"filler-{number}") for number in range(64)]
    setting.provider.document = {"keys": [*fillers, tokens.jwk()]}
    with pytest.raises(Unauthenticated) as caught:
        await setting.verifier.verify(setting.token())
    assert caught.value.reason == "key"


async def test_a_process_that_starts_while_the_issuer_is_away_knows_the_keys_of_the_one_before(setting: Setting, tmp_path: Path) -> None:
    setting.restart(tmp_path)
    assert await setting.accepts(setting.token())
    assert b"keys" not in (tmp_path / "keys").read_bytes()
    setting.provider.status = "503 Away"
    setting.restart(tmp_path)
    assert await setting.accepts(setting.token())
    assert setting.provider.asked == 2  # it was asked before what was kept counted
    setting.clock.advance(COOLDOWN_S)
    setting.provider.document, setting.provider.status = {"keys": [tokens.jwk("k2")]}, "200 OK"
    assert await setting.accepts(setting.token("k2"))
    setting.restart(tmp_path)
    setting.provider.status = "503 Away"
    with pytest.raises(Unavailable):
        await setting.verifier.verify(setting.token())  # of a key that the issuer had withdrawn by then


async def test_kept_keys_are_as_old_as_they_are_however_often_a_process_starts(setting: Setting, tmp_path: Path) -> None:
    setting.restart(tmp_path)
    assert await setting.accepts(setting.token())
    setting.provider.status = "503 Away"
    setting.clock.advance(STALE_S - 1)
    setting.restart(tmp_path)
    assert await setting.accepts(setting.token())
    setting.clock.advance(2)
    for folder in (tmp_path, tmp_path):
        with pytest.raises(Unavailable):
            await setting.verifier.verify(setting.token())
        setting.restart(folder)


async def test_kept_keys_that_were_changed_are_no_keys(setting: Setting, tmp_path: Path) -> None:
    setting.restart(tmp_path)
    assert await setting.accepts(setting.token())
    setting.provider.status = "503 Away"
    path = tmp_path / "keys"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    setting.restart(tmp_path)
    with pytest.raises(Unavailable):
        await setting.verifier.verify(setting.token())
