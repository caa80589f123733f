"""What a flag server's document says, split by tenant. Frozen values; of other tenants' rules nothing is left in one tenant's share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from app.experiments.types import Variant

MODEL_PREFIX = "model."  # of the flags that choose a model's version


class RawVariant(Protocol):
    """What an engine answers for one flag and one context: the variant's name, its payload's text, and whether the flag was on."""

    @property
    def name(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def payload(self) -> str | None: ...
    @property
    def feature_enabled(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class UnleashFlag:
    """A flag `model.<model>` as far as it concerns one tenant."""

    model: str
    experiment: str  # the key of the experiment that the flag gives birth to
    running: bool  # on, with at least one strategy that concerns the tenant
    rollout: float  # percent, the largest of its strategies'
    variants: tuple[Variant, ...]  # as the payloads say; `control` is set only where a payload says so


@dataclass(frozen=True, slots=True)
class UnleashDocument:
    """One tenant's share of the document.

    `features` are of the client-features format and go into an engine of their own: their names are the flag server's, so they may be
    those of the service's own flags as well. Conditions on the tenant are evaluated and gone, segments inlined, and each variant's
    payload names its strategy: `deciding.decide` reads it.
    """

    tenant: str
    revision: int
    features: tuple[Mapping[str, Any], ...]
    flags: Mapping[str, UnleashFlag]  # by model
    problems: tuple[str, ...]  # what is wrong with flags that concern this tenant, a sentence each


@dataclass(frozen=True, slots=True)
class UnleashState:
    """How the source is, for health and metrics. No secrets, no tenants."""

    fetched_at: datetime | None  # when the flag server last gave a good document, or said that nothing changed
    revision: int | None  # of the document that decides
    stored: bool  # it came from the database: the flag server has not been heard since the start
    refused: str | None  # why the newest document was refused; None where it was good
    problems: int  # with flags, of all tenants
