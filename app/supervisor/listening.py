"""The one listening socket, opened by the parent and inherited by every serving process: the kernel spreads the connections."""

from __future__ import annotations

import errno
import socket

from app.errors import ConfigurationError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the first address that `host` has; raises ConfigurationError that says what to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ConfigurationError(f"The host {host!r} (TURNOUT_HOST) is not an address of this machine: {error.strerror}.") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigurationError(_why_not(host, port, error)) from None
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket, host: str) -> str:
    """The address to open from this machine: an any-address is reached by loopback."""
    port = sock.getsockname()[1]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104  compared, not bound
    return f"http://{reachable}:{port}"


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = port + 1000 if port < 64000 else port - 1000
        return f"Port {port} on {host} is in use by another program. Take another one: make run PORT={other} (or TURNOUT_PORT={other})."
    if error.errno == errno.EACCES:
        return f"Port {port} may be opened by root alone. Take one above 1023: make run PORT=8000 (or TURNOUT_PORT=8000)."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine. Set TURNOUT_HOST to one that is, such as 127.0.0.1 or 0.0.0.0."
    return f"Cannot listen on {host} port {port}: {error.strerror}."
