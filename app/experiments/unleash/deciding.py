"""What a unit gets from a tenant's share of a flag server's document. Pure: the engine answers, this reads the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.experiments.types import Decision
    from app.experiments.unleash.types import RawVariant, UnleashDocument


def decide(
    document: UnleashDocument,
    model: str,
    unit_hash: str,
    attributes: Mapping[str, str] | None,
    ask: Callable[[str], RawVariant | None],
    *,
    taking_part: float = 1.0,
) -> Decision | None:
    """The decision of the flag `model.<model>`; None where no flag of this tenant concerns the model.

    `ask` puts one flag to the engine of the tenant's features, in the context of this unit and these attributes (`userId` the unit
    hash, `properties` the attributes, `tenantId` never the caller's). `taking_part`: the probability of not being held out, 1 where
    the tenant holds nobody out; who is held out is not asked here. Raises nothing: what cannot be understood is UNKNOWN_VARIANT.
    """
    raise NotImplementedError
