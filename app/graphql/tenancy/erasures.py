"""Forgetting units."""

from __future__ import annotations

import strawberry

from app.graphql.context import Info, root_mutation
from app.graphql.tenancy.types import Erasure
from app.kernel.context import Action
from app.tenancy import types


@strawberry.type
class ErasureMutation:
    @root_mutation(
        Action.ERASE,
        "Forget one unit: its rows are erased or made anonymous everywhere. `rows` are those so far; what of it arrives late, from a "
        "machine that was away or out of a backup, is never kept. What is predicted of it from a minute after `at` is a new unit's life.",
        graphql_type=Erasure | None,
    )
    async def erase_unit(self, info: Info, unit: strawberry.ID, reason: str) -> types.Erasure:
        return await info.context.services.erasures.erase_unit(info.context.request, str(unit), reason)
