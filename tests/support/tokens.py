"""Tokens for tests: an issuer of our own that signs good ones, and every kind of bad one that no door may let in."""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64encode
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.kernel.issuers import Issuer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Signer = Callable[[bytes], bytes]

ISSUER, AUDIENCE, KEY_ID = "https://idp.example", "predict", "k1"
HEADER = {"alg": "RS256", "typ": "JWT", "kid": KEY_ID}
MISSING = object()


def issuer(key_file: Path | None = None, jwks_url: str | None = None, **changes: Any) -> Issuer:
    """The settings of the issuer that signs this module's tokens."""
    fields: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "algorithms": ("RS256",),
        "jwks_url": jwks_url,
        "key_file": key_file,
        "tenant_claim": "org_id",
        "subject_claim": "sub",
        "roles_claim": "roles",
        "unit_claim": None,
        "role_map": {},
    }
    return Issuer(**{**fields, **changes})


@cache
def rsa_key(name: str = KEY_ID) -> rsa.RSAPrivateKey:
    """The issuer's key ("k1"), or by any other name another one."""
    return rsa.generate_private_key(65537, 2048)


def public_pem(name: str = KEY_ID) -> bytes:
    return rsa_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(name: str = KEY_ID, **changes: Any) -> dict[str, Any]:
    """The public key as the issuer's JWKS document lists it."""
    numbers = rsa_key(name).public_key().public_numbers()
    parts = {"n": numbers.n, "e": numbers.e}
    encoded = {member: _b64(value.to_bytes((value.bit_length() + 7) // 8)) for member, value in parts.items()}
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": name, **encoded, **changes}


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims of tenant acme; a change to MISSING leaves the claim out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "iat": now, "exp": now + 300, "org_id": "acme", "roles": ["READER"]}
    return {name: value for name, value in {**good, **changes}.items() if value is not MISSING}


def good_token(**changes: Any) -> str:
    """A token that is accepted, with these claims changed."""
    return token(HEADER, claims(**changes))


def token(header: dict[str, Any] | str, payload: Any, sign: Signer | None = None) -> str:
    """Any header and payload (JSON, or text as it is), signed by the issuer's key unless `sign` says otherwise."""
    head, body = (part if isinstance(part, str) else json.dumps(part) for part in (header, payload))
    signed = f"{_b64(head.encode())}.{_b64(body.encode())}"
    return f"{signed}.{_b64((sign or rsa_signer())(signed.encode()))}"


def rsa_signer(name: str = KEY_ID) -> Signer:
    return lambda message: rsa_key(name).sign(message, padding.PKCS1v15(), SHA256())


def hmac_signer(secret: bytes) -> Signer:
    return lambda message: hmac.digest(secret, message, "sha256")


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _header(changes: dict[str, Any], sign: Signer | None = None) -> str:
    return token({**HEADER, **changes}, claims(), sign)


def _payload(edit: Callable[[str], str]) -> str:
    return token(HEADER, edit(json.dumps(claims())))


def _hs_with_public_key(encoding: Encoding) -> str:
    public = rsa_key().public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return _header({"alg": "HS256"}, hmac_signer(public))


def _future(seconds: float) -> int:
    return int(time.time() + seconds)


def _with_member(member: str) -> str:
    return _payload(lambda text: text[:-1] + "," + member + "}")


BAD_TOKENS: list[tuple[str, Callable[[], str]]] = [
    ("alg none, empty signature", lambda: _header({"alg": "none"}, lambda _: b"")),
    ("alg nOnE, empty signature", lambda: _header({"alg": "nOnE"}, lambda _: b"")),
    ("alg none, with a signature", lambda: _header({"alg": "none"})),
    ("alg missing", lambda: token({"typ": "JWT", "kid": KEY_ID}, claims())),
    ("alg is a list", lambda: _header({"alg": ["RS256"]})),
    ("HS256 keyed with the public key as PEM", lambda: _hs_with_public_key(Encoding.PEM)),
    ("HS256 keyed with the public key as DER", lambda: _hs_with_public_key(Encoding.DER)),
    ("signed by another key", lambda: _header({}, rsa_signer("stranger"))),
    ("unsigned", lambda: _header({}, lambda _: b"")),
    ("brings its own key: jwk", lambda: _header({"jwk": jwk("stranger")}, rsa_signer("stranger"))),
    ("names its own keys: jku", lambda: _header({"jku": "https://evil.example/jwks", "kid": "x"}, rsa_signer("stranger"))),
    ("names its own certificate: x5u", lambda: _header({"x5u": "https://evil.example/c"}, rsa_signer("stranger"))),
    ("kid is a path", lambda: _header({"alg": "HS256", "kid": "../../dev/null"}, hmac_signer(b""))),
    ("kid is a number", lambda: _header({"kid": 1})),
    ("critical extension that nobody knows", lambda: _header({"crit": ["x"], "x": 1})),
    ("b64 false", lambda: _header({"b64": False, "crit": ["b64"]})),
    ("typ of something else", lambda: _header({"typ": "dpop+jwt"})),
    ("expired", lambda: good_token(exp=_future(-100))),
    ("nbf in the future", lambda: good_token(nbf=_future(1000))),
    ("iat in the future", lambda: good_token(iat=_future(100_000), exp=_future(100_300))),
    ("exp missing", lambda: good_token(exp=MISSING)),
    ("exp is a text", lambda: good_token(exp=str(_future(300)))),
    ("exp null", lambda: good_token(exp=None)),
    ("exp is a list", lambda: good_token(exp=[])),
    ("exp true", lambda: good_token(exp=True)),
    ("exp infinite", lambda: _payload(lambda text: text.replace('"exp": ', '"exp": 1e999, "was": '))),
    ("exp NaN", lambda: good_token(exp=float("nan"))),
    ("lifetime of ten years", lambda: good_token(exp=_future(315_360_000))),
    ("iss wrong", lambda: good_token(iss="https://evil.example")),
    ("iss missing", lambda: good_token(iss=MISSING)),
    ("aud wrong", lambda: good_token(aud="other")),
    ("aud missing", lambda: good_token(aud=MISSING)),
    ("sub is a number", lambda: good_token(sub=7)),
    ("duplicate claim", lambda: _with_member('"org_id":"evil"')),
    ("duplicate header", lambda: token('{"alg":"none","alg":"RS256","kid":"k1"}', claims())),
    ("payload is a list", lambda: token(HEADER, [1])),
    ("payload is no JSON", lambda: token(HEADER, "xx")),
    ("payload nested 2,500 deep", lambda: _with_member('"a":' + "[" * 2_500 + "]" * 2_500)),
    (
        "header nested 100,000 deep, unsigned",
        lambda: token('{"alg":"RS256","a":' + "[" * 100_000 + "]" * 100_000 + "}", claims(), lambda _: b"x"),
    ),
    ("whole number of 5,000 digits", lambda: _with_member('"n":' + "9" * 5_000)),
    ("a megabyte of letters", lambda: "A" * 1_000_000),
    ("two dots", lambda: ".."),
    ("letters beyond ASCII", lambda: "é.é.é"),
    ("signature with a foreign letter", lambda: good_token()[:-1] + "!"),
    ("encrypted, not signed", lambda: "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAA.AAAA.AAAA"),
    ("tenant missing", lambda: good_token(org_id=MISSING)),
    ("tenant is a number", lambda: good_token(org_id=7)),
    ("tenant true", lambda: good_token(org_id=True)),
    ("tenant empty", lambda: good_token(org_id="")),
    ("tenant with a NUL", lambda: good_token(org_id="ac\0me")),
    ("two tenants in a list", lambda: good_token(org_id=["acme", "other"])),
    ("two tenants in a map", lambda: good_token(org_id={"acme": {}, "other": {}})),
]
