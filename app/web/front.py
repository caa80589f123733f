"""The application of one serving process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.types import Receive, Scope, Send

    Endpoint = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Front(Starlette):
    """A Starlette application, of which `endpoint` is called for requests to `path` before middlewares and routes are gone through.

    Only for an endpoint that answers whatever happens: nothing stands behind it. It is to be among the routes as well, where
    Starlette redirects from `path` with a slash. No coroutine of its own stands between the server and the endpoint, so a server has to be
    told that this is an ASGI 3 application.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(**options)
        self._path, self._endpoint = path, endpoint

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http" and scope["path"] == self._path:
            return self._endpoint(scope, receive, send)
        return super().__call__(scope, receive, send)
