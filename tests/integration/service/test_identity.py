"""Who gets in, over real HTTP: every kind of bad token, identity providers that rotate, fail and stall, and forged addresses."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from app.tenancy.identity.refusals import Refusal
from tests.support import tokens
from tests.support.identity_provider import identity_provider
from tests.support.service import own_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.identity_provider import IdentityProvider
    from tests.support.service import Service

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("identity")]

BODY = json.dumps({"query": "{ viewer { tenant subject } }"})
CREATE = 'mutation { createTenant(input: {id: "acme", name: "Acme"}) { id } }'
CONSTANT = {"message": "A valid bearer token is needed.", "extensions": {"code": "UNAUTHENTICATED", "retryable": False, "requestId": "?"}}


@pytest.fixture(scope="module")
def providers() -> Iterator[tuple[IdentityProvider, ...]]:
    with identity_provider("a1") as first, identity_provider("b1") as away, identity_provider("c1") as slow:
        yield first, away, slow


@pytest.fixture(scope="module")
def running(providers: tuple[IdentityProvider, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    key = tmp_path_factory.mktemp("keys") / "public.pem"
    key.write_bytes(tokens.public_pem())
    file = {"issuer": tokens.ISSUER, "audience": tokens.AUDIENCE, "keyFile": str(key), "tenantClaim": "org_id"}
    entra = {"preset": "entra", "audience": tokens.AUDIENCE, "allowedTenants": ["acme"], "keyFile": str(key)}
    issuers = json.dumps([file, entra, *(provider.entry() for provider in providers)])
    with own_service(TURNOUT_JWT_ISSUERS=issuers, TURNOUT_TRUSTED_PROXIES='["127.0.0.2/32"]') as service:
        made = ask(service, tokens.good_token(org_id="platform", roles=["OPERATOR"]), json.dumps({"query": CREATE}))
        assert made.json()["data"] == {"createTenant": {"id": "acme"}}
        yield service


def ask(service: Service, token: str, body: str = BODY) -> httpx.Response:
    return httpx.post(
        f"{service.url}/graphql", content=body, headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"}, timeout=30
    )


def request(authorization: bytes, **headers: str) -> bytes:
    lines = [b"POST /graphql HTTP/1.1", b"host: x", b"content-type: application/json", b"content-length: %d" % len(BODY)]
    lines += [b"authorization: " + authorization, *(f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items())]
    return b"\r\n".join(lines) + b"\r\n\r\n" + BODY.encode()


def raw(service: Service, authorization: bytes, source: str = "127.0.0.1", **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body; the header's bytes go out as they are, from the address `source`."""
    with socket.create_connection(("127.0.0.1", service.port), 30, (source, 0)) as connection:
        connection.sendall(request(authorization, connection="close", **headers))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(answer.read())


def said(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def test_at_least_48_kinds_of_bad_token_get_one_answer_and_leave_nothing_in_the_log(running: Service) -> None:
    assert len({name for name, _ in tokens.BAD_TOKENS}) == len(tokens.BAD_TOKENS) >= 48
    assert ask(running, tokens.good_token()).json()["data"]["viewer"] == {"tenant": "acme", "subject": "u1"}
    before = len(running.log.read_text())
    sent = {name: make() for name, make in tokens.BAD_TOKENS}
    sent["of a directory that is not ours"] = tokens.good_token(iss="https://login.microsoftonline.com/evil/v2.0", tid="evil", oid="u")
    for name, token in sent.items():
        status, headers, answer = raw(running, b"Bearer " + token.encode("utf-8"))
        assert (name, status, headers["www-authenticate"]) == (name, 401, 'Bearer error="invalid_token"')
        answer["errors"][0]["extensions"]["requestId"] = "?"
        assert answer == {"errors": [CONSTANT]}
    logged = running.log.read_text()[before:]
    reasons = Counter(line["reason"] for line in map(json.loads, logged.splitlines()) if line["event"] == "token_refused")
    assert sum(reasons.values()) == len(sent)
    assert set(reasons) <= set(Refusal) - {Refusal.UNEXPECTED}
    pieces = {piece for token in sent.values() for piece in re.findall(r"[\w-]{12,}", token)}
    assert [piece[:40] for piece in pieces if piece in logged] == []
    values = [tokens.ISSUER, "evil.example", "acme", '"u1"', tokens.AUDIENCE, "login.microsoftonline"]
    assert [value for value in [*values, tokens.jwk()["n"][:40], "-----BEGIN"] if value in logged] == []


async def test_a_cold_provider_is_asked_once_for_all_who_wait(running: Service, providers: tuple[IdentityProvider, ...]) -> None:
    first = providers[0]
    async with httpx.AsyncClient(timeout=30) as client:
        requests = [
            client.post(
                f"{running.url}/graphql",
                content=BODY,
                headers={"Authorization": f"Bearer {first.token('a1', jti=str(number))}", "Content-Type": "application/json"},
            )
            for number in range(20)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
    assert first.asked == 1
    assert ask(running, first.token("a2")).status_code == 401  # not published: within the cooldown nobody asks again
    first.status, first.rubbish = 500, b"away"
    assert ask(running, first.token("a1", jti="later")).status_code == 200
    assert first.asked == 1


@pytest.mark.parametrize("trouble", ["away", "rubbish", "slow"])
def test_a_provider_in_trouble_is_no_bad_token_and_other_issuers_are_served(
    running: Service, providers: tuple[IdentityProvider, ...], trouble: str
) -> None:
    troubled = providers[2 if trouble == "slow" else 1]
    troubled.status = 503 if trouble == "away" else 200
    troubled.rubbish = b"<html>" if trouble == "rubbish" else None
    if trouble == "slow":
        troubled.answering.clear()
    refused = ask(running, troubled.token(troubled.keys[0], jti=trouble))
    assert (refused.status_code, refused.json()["errors"][0]["extensions"]["code"]) == (503, "UNAVAILABLE")
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert ask(running, tokens.good_token(jti=trouble)).status_code == 200


def failures(running: Service, source: str, forwarded: Callable[[int], str] | None = None) -> int:
    """How many bad tokens it takes from there until the address is refused; 600 where it never is.

    They are sent at once, for attempts come back with the time.
    """
    each = [{} if forwarded is None else {"x_forwarded_for": forwarded(number)} for number in range(600)]
    with socket.create_connection(("127.0.0.1", running.port), 30, (source, 0)) as connection:
        connection.sendall(b"".join(request(b"Bearer nonsense", **headers) for headers in each))
        with connection.makefile("rb") as answers:
            for number in range(600):
                status = int(answers.readline().split(b" ")[1])
                length = int(http.client.parse_headers(answers)["content-length"])
                answers.read(length)
                if status == 429:
                    return number
                assert status == 401
    return 600


def test_an_address_that_fails_too_often_is_refused_before_its_token_is_looked_at(running: Service) -> None:
    good = tokens.good_token(sub="known")
    assert ask(running, good).status_code == 200
    assert 200 <= failures(running, "127.0.0.3") < 600
    for number in range(50):  # an attempt comes back every 50 ms: on a busy machine there may be one by the time we ask
        status, headers, answer = raw(running, f"Bearer {tokens.good_token(sub=f'new {number}')}".encode(), source="127.0.0.3")
        if status == 429:
            break
        assert status == 200
        assert failures(running, "127.0.0.3") < 600
    assert (status, answer["errors"][0]["extensions"]["code"], headers["retry-after"]) == (429, "RATE_LIMITED", "1")
    assert raw(running, f"Bearer {good}".encode(), source="127.0.0.3")[0] == 200  # a token that was verified works on
    assert raw(running, f"Bearer {tokens.good_token(sub='newer')}".encode(), source="127.0.0.1")[0] == 200  # and others are not meant


def test_a_strangers_forwarded_header_counts_nothing_and_a_trusted_proxys_does(running: Service) -> None:
    assert failures(running, "127.0.0.4", lambda number: f"10.1.{number // 200}.{number % 200}") < 600
    assert failures(running, "127.0.0.2", lambda number: f"10.2.{number // 200}.{number % 200}") == 600
    # The last hop before the proxy counts, whatever it says came before it.
    assert failures(running, "127.0.0.2", lambda number: f"6.6.6.{number % 200}, 10.3.0.1") < 600
    assert raw(running, b"Bearer nonsense", source="127.0.0.2", x_forwarded_for="6.6.6.6")[0] == 401
