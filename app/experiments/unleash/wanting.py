"""Which experiments a tenant's share of a flag server's document gives birth to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from app.experiments.types import Variant
    from app.experiments.unleash.ports import ModelSight
    from app.experiments.unleash.types import UnleashDocument, UnleashFlag

_PRODUCTION = "production"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A running flag of a model that the tenant has, as an experiment. Exactly one variant is the control."""

    key: str
    model: str
    model_id: UUID
    rollout: float
    variants: tuple[Variant, ...]


def wanted_experiments(share: UnleashDocument | None, models: Mapping[str, ModelSight]) -> dict[str, Wanted]:
    """By key. A flag that is off, of a model that is not there, or without a variant that is understood, is none."""
    found = {}
    for model, flag in (share.flags if share is not None else {}).items():
        sight = models.get(model)
        if sight is not None and flag.running and flag.variants:
            found[flag.experiment] = Wanted(flag.experiment, model, sight.model_id, flag.rollout, _with_control(flag, sight))
    return found


def control_of(variants: Sequence[Variant], model: ModelSight) -> Variant:
    """The control: where a payload says so, else the variant that is in production, else the first of these, which are not none."""
    in_production = model.aliases.get(_PRODUCTION)

    def rank(variant: Variant) -> int:
        if variant.control:
            return 0
        version = variant.version if variant.alias is None else model.aliases.get(variant.alias)
        return 1 if variant.alias == _PRODUCTION or (version is not None and version == in_production) else 2

    return min(variants, key=rank)  # of equals the first


def _with_control(flag: UnleashFlag, model: ModelSight) -> tuple[Variant, ...]:
    control = control_of(flag.variants, model)
    return tuple(replace(variant, control=variant is control) for variant in flag.variants)
