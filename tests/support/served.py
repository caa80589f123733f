"""An ASGI app on a real uvicorn in a thread of this process, and a client that sends any bytes."""

import contextlib
import socket
import threading
from dataclasses import dataclass

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route


@contextlib.contextmanager
def served(endpoint):
    """`endpoint` mounted at /graphql as the application mounts it; gives the port."""
    app = Starlette(routes=[Route("/graphql", endpoint)])
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, http="httptools", loop="uvloop", lifespan="off", ws="none", server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ours(self):
        """Whether the handler answered, and not the server before it."""
        return "x-request-id" in self.headers

    @property
    def errors(self):
        return orjson.loads(self.body).get("errors", [])

    @property
    def codes(self):
        return [error["extensions"]["code"] for error in self.errors]


def request_bytes(method="POST", target="/graphql", headers=(), body=b""):
    """An HTTP/1.1 request as it goes over the wire; nothing is checked or added."""
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1"), *(f"{name}: {value}".encode("latin-1") for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def exchange(port, data, *, bodyless=False):
    """Sends the bytes on a connection of their own and reads one answer; None where the server only hung up."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        with connection.makefile("rb") as stream:
            return read_answer(stream, bodyless=bodyless)


def read_answer(stream, *, bodyless):
    first = stream.readline()
    if not first:
        return None
    headers = {}
    while (line := stream.readline()) not in {b"\r\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    body = b"" if bodyless else stream.read(length) if "content-length" in headers else stream.read()
    return RawAnswer(int(first.split()[1]), headers, body)
