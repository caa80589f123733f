"""The error codes as a type of the schema: named here once, before whoever uses it."""

from __future__ import annotations

import strawberry

from app.graphql.errors import ErrorCode

__all__ = ["ErrorCode"]

strawberry.enum(ErrorCode, name="ErrorCode", description="`extensions.code` of each error.")
