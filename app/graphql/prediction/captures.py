"""Captured inputs, for those who may see them."""

from __future__ import annotations

from typing import Any

import strawberry
from strawberry.scalars import JSON

from app.graphql.context import Info, root_field
from app.kernel.context import Action


@strawberry.type
class CaptureQuery:
    @root_field(
        Action.READ_INPUTS,
        "What was sent for a prediction, where captureInputs was on: {columns, rows, rowCount, cut}, rows in signature order, at most the "
        "first 100. null where nothing is kept.",
        graphql_type=JSON | None,
    )
    async def captured_input(self, info: Info, prediction_id: strawberry.ID) -> Any:
        return await info.context.services.captured.of(info.context.request, str(prediction_id))
