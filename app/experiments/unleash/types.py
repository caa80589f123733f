"""What a flag server's document says, split by tenant. Frozen values; of other tenants' rules nothing is left in one tenant's share."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from app.experiments.flags.document import Document, Flag
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
class Target:
    """What one variant's payload says. All None: it could not be understood, and whoever gets it gets what is in production."""

    variant: str
    version: int | None = None
    alias: str | None = None
    control: bool = False

    @property
    def understood(self) -> bool:
        return self.version is not None or self.alias is not None


Place = tuple[int, int]  # of a variant: (strategy, choice); strategy -1: among the flag's own variants
Chances = dict[Place | None, Fraction]  # of each outcome of a flag; None: not let in


@dataclass(frozen=True, slots=True)
class UnleashFlag:
    """A flag `model.<model>` as far as it concerns one tenant: on or off, but with a strategy that may hold."""

    model: str
    experiment: str  # the key of the experiment that the flag gives birth to
    flag: Flag
    parents: Mapping[str, Flag]  # by name: those that `flag` depends on
    targets: Mapping[Place, Target]
    twins: Mapping[tuple[str, int], str]  # (flag, strategy) -> the flag that tells whether its constraints hold; left out: they always do
    rollout: float  # percent, the largest of its strategies'
    variants: tuple[Variant, ...]  # by name, the first of a name; `control` only where a payload says so
    twin_names: tuple[str, ...] = ()
    chances: dict[tuple[bool, ...], Chances | None] = field(default_factory=dict, compare=False, repr=False)  # by the twins' answers

    @property
    def running(self) -> bool:
        return self.flag.enabled


@dataclass(frozen=True, slots=True)
class UnleashDocument:
    """One tenant's share of the document.

    `document` goes into an engine of its own: its flags' names are the flag server's, so they may be those of the service's own
    flags as well. Conditions on the tenant are evaluated and gone, segments inlined, and each variant's payload is its place:
    `deciding.decide` reads it.
    """

    tenant: str
    document: Document
    flags: Mapping[str, UnleashFlag]  # by model; empty: no engine is needed
    problems: tuple[str, ...]  # what is wrong with flags that concern this tenant, a sentence each

    @property
    def revision(self) -> int:
        return self.document.revision


@dataclass(frozen=True, slots=True)
class UnleashOptions:
    """How to reach the server: `url` is the one that ends in /api, `token` a backend token."""

    url: str
    token: str = field(repr=False)
    shared_flags: bool  # whether a strategy without a condition on `tenantId` counts
    refresh_s: float = 15
    app_name: str = "turnout"


@dataclass(frozen=True, slots=True)
class UnleashState:
    """How the source is, for health and metrics. No secrets, no tenants."""

    heard_at: datetime | None  # when the flag server last gave a good document, or said that nothing changed
    revision: int | None  # of the document that decides
    stored: bool  # it came from the database: the flag server has not been heard since the start
    silent: str | None  # what the client last complained about, where the server was not heard for three polls
    refused: str | None  # why the newest document was refused; None where it was good
    problems: int  # with flags, of all tenants
