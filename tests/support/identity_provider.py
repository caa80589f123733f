"""An identity provider over real HTTP for a service of its own process: its keys rotate, it is away, slow, or talks rubbish."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator


class IdentityProvider:
    """Publishes the public keys named in `keys`. `asked` counts how often it was."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.status = 200
        self.rubbish: bytes | None = None
        self.answering = threading.Event()  # cleared: it takes a question and is silent
        self.answering.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.issuer}/jwks"

    def entry(self, **more: Any) -> dict[str, Any]:
        """What TURNOUT_JWT_ISSUERS says of it."""
        return {"issuer": self.issuer, "audience": tokens.AUDIENCE, "jwksUrl": self.jwks_url, "tenantClaim": "org_id", **more}

    def token(self, key: str, **claims: Any) -> str:
        """A token signed by its key of that name, published or not."""
        header = {**tokens.HEADER, "kid": key}
        return tokens.token(header, tokens.claims(**{"iss": self.issuer, **claims}), tokens.rsa_signer(key))

    def document(self) -> bytes:
        return json.dumps({"keys": [tokens.jwk(name) for name in self.keys]}).encode() if self.rubbish is None else self.rubbish

    def close(self) -> None:
        self.answering.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                provider.answering.wait(30)
                body = provider.document()
                try:
                    self.send_response(provider.status)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # who asked gave up

            def log_message(self, *_: Any) -> None: ...

        return Handler


@contextmanager
def identity_provider(*keys: str) -> Iterator[IdentityProvider]:
    provider = IdentityProvider(*keys)
    try:
        yield provider
    finally:
        provider.close()
