"""The application of one serving process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Front(Starlette):
    """A Starlette application, of which `endpoint` is called for requests to `path` before middlewares and routes are gone through.

    Only for an endpoint that answers whatever happens: nothing stands behind it. It is to be among the routes as well, where
    Starlette redirects from `path` with a slash.
    """

    def __init__(self, path: str, endpoint: ASGIApp, **options: Any) -> None:
        super().__init__(**options)
        self._path, self._endpoint = path, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path:
            await self._endpoint(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
