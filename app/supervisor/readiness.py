"""Asks a service over its socket whether it can serve. A few lines of HTTP: the parent imports no client library."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_S = 0.02
_ANSWER_S = 0.5


def is_ready(url: str) -> bool:
    """Whether GET /readyz answers 200 within half a second."""
    target = urlsplit(url)
    request = f"GET /readyz HTTP/1.1\r\nHost: {target.netloc}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection((target.hostname or "", target.port or 80), timeout=_ANSWER_S) as connection:
            connection.sendall(request)
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


def wait_until_ready(url: str, timeout_s: float, failure: Callable[[], str | None]) -> None:
    """Returns once the service is ready; raises ConfigurationError with `failure()`'s words as soon as it says why not."""
    end = time.monotonic() + timeout_s
    while not is_ready(url):
        if problem := failure():
            raise ConfigurationError(problem)
        if time.monotonic() > end:
            raise ConfigurationError(f"{url}/readyz did not answer 200 within {timeout_s:g} s; what was printed above says why.")
        time.sleep(_PAUSE_S)
