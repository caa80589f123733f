"""Answers for paths that do not exist and methods that a page does not take, in the form that every other error has."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from starlette.requests import Request

_TEXTS = {404: ("NOT_FOUND", "There is nothing at this path; GET / lists what there is."), 405: ("BAD_REQUEST", "Send a GET to this path.")}


def not_found(_request: Request, error: Exception) -> Response:
    """A GraphQL error body with the status of the HTTPException."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    code, message = _TEXTS.get(status, _TEXTS[404])
    extensions = {"code": code, "retryable": False, "requestId": uuid4().hex}
    return JSONResponse({"errors": [{"message": message, "extensions": extensions}]}, status, headers)
