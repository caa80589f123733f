"""All sums of a tenant anew, from its exposures and outcomes: for the day on which somebody doubts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.experiments.exposures import tally_anew
from app.experiments.folding import BATCH, fold_round, hold
from app.experiments.values import forget_values

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.session import Database
    from app.experiments.ports import OutcomeWindows


async def rebuild(database: Database, windows: OutcomeWindows, tenant_id: UUID, batch: int = BATCH) -> int:
    """How many units had their values computed anew. One transaction: readers see the old sums until it ends, and then the new ones.

    Same rows in, same bytes out: the sums are what folding had made of them, unless somebody had changed a row by hand, or the tenant's
    outcome window. Covariates that had been missing for want of a control are filled in. Looks stay as they were frozen.
    Raises Unavailable; `database` needs timeouts for statements over all of the tenant's rows.
    """
    units = 0
    async with database.tenant_tx(tenant_id) as session:
        await hold(session, tenant_id)
        while (await fold_round(session, tenant_id, windows.outcome_window_days(tenant_id), batch)).more:
            pass  # what waits first, so that no queue is asked below
        await tally_anew(session, tenant_id)
        await forget_values(session, tenant_id)
        more = True
        while more:
            done = await fold_round(session, tenant_id, windows.outcome_window_days(tenant_id), batch)
            units, more = units + done.units, done.more
    return units
