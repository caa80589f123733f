"""A small HTTP server that answers a client of Unleash with whatever a test wants: documents, rubbish, refusals, silence."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FlagServer:
    """Answers `GET /api/client/features` with `answer`: (status, body). A document's ETag is its revision, honoured by 304."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (503, b"")
        self.asked = 0  # times that features were asked for
        self.tokens: set[str | None] = set()
        self.registered: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/api"

    def give(self, document: Any) -> None:
        self.answer = (200, json.dumps(document).encode())

    def await_polls(self, more: int = 1) -> None:
        """Returns when features were asked for so many times more, counted from the next question on."""
        with self._changed:
            target = self.asked + more
            assert self._changed.wait_for(lambda: self.asked >= target, 60)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = outer.answer
                etag = None
                if status == 200:
                    try:
                        etag = f'"{json.loads(body)["meta"]["revisionId"]}"'
                    except (ValueError, KeyError, TypeError):
                        etag = '"rubbish"'
                if etag is not None and self.headers["If-None-Match"] == etag:
                    status, body = 304, b""
                self.send_response(status)
                if etag is not None and status != 304:  # as the real one, which does not repeat it
                    self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                with outer._changed:
                    outer.asked += 1
                    outer.tokens.add(self.headers["Authorization"])
                    outer._changed.notify_all()

            def do_POST(self) -> None:
                outer.registered.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        return Handler
