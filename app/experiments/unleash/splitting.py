"""The document of a flag server, and each tenant's share of it. Pure.

Whoever edits one tenant's strategies must not be able to take away another's: a strategy that cannot be understood counts for nobody
and is reported to those whom it concerns, and everything else goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from app.errors import InvalidInput
from app.experiments.flags.checking import MOST_FLAGS
from app.experiments.flags.document import FlagsRefused, Problem
from app.experiments.flags.reading import MOST_BYTES
from app.experiments.unleash.sharing import dependencies_of, share_of
from app.experiments.unleash.tenants import Unreadable, is_on_tenant
from app.experiments.unleash.types import MODEL_PREFIX
from app.kernel.names import check_name

if TYPE_CHECKING:
    from app.experiments.unleash.types import UnleashDocument


class SplitDocument:
    """A document of the right shape; shares are made when they are first asked for, and kept. Any thread may ask."""

    def __init__(self, raw: Mapping[str, Any], revision: int, shared_flags: bool) -> None:
        self.revision = revision
        self.shared_flags = shared_flags
        self._features: dict[str, Mapping[str, Any]] = {feature["name"]: feature for feature in raw["features"]}
        self._segments = {
            segment["id"]: segment for segment in raw.get("segments") or [] if isinstance(segment, Mapping) and "id" in segment
        }
        self._named: dict[str, dict[str, list[int]]] = {}  # tenant -> feature -> strategies
        self._open: dict[str, list[int]] = {}  # feature -> strategies
        self._shares: dict[str, UnleashDocument] = {}
        self._making = threading.Lock()
        self.models = {
            name.removeprefix(MODEL_PREFIX): feature for name, feature in self._features.items() if name.startswith(MODEL_PREFIX)
        }
        self.problems = tuple(self._general())
        self._index()

    @classmethod
    def read(cls, text: str | bytes, shared_flags: bool) -> SplitDocument:
        """The document; raises FlagsRefused where it is not one: no JSON, another shape, no revision."""
        data = text.encode(errors="replace") if isinstance(text, str) else text
        if len(data) > MOST_BYTES:
            raise _refused("", f"has {len(data):,} bytes; at most {MOST_BYTES:,} are read.")
        try:
            raw = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise _refused("", f"is not JSON: {error}.") from None
        return cls.of(raw, shared_flags)

    @classmethod
    def of(cls, raw: Any, shared_flags: bool) -> SplitDocument:
        """As `read`, of parsed JSON."""
        if not isinstance(raw, Mapping):
            raise _refused("", "must be a JSON object.")
        features, meta = raw.get("features"), raw.get("meta")
        revision = meta.get("revisionId") if isinstance(meta, Mapping) else None
        if type(revision) is not int or revision < 0:
            raise _refused("meta.revisionId", "must be a whole number: it tells the newer of two documents.")
        if not isinstance(features, list) or len(features) > MOST_FLAGS:
            raise _refused("features", f"must be a list of at most {MOST_FLAGS:,} flags.")
        names = [feature.get("name") if isinstance(feature, Mapping) else None for feature in features]
        if not all(isinstance(name, str) and name for name in names):
            raise _refused("features", "must be objects with a name each.")
        if len(set(names)) < len(names):
            raise _refused("features", "must have names of their own: the last one of a name would win.")
        segments = raw.get("segments")
        if segments is not None and not isinstance(segments, list):
            raise _refused("segments", "must be a list.")
        return cls(raw, revision, shared_flags)

    def of_tenant(self, tenant: str) -> UnleashDocument:
        """The tenant's share, the same object each time; without flags where none concerns it."""
        share = self._shares.get(tenant)
        if share is None:
            with self._making:
                share = self._shares.get(tenant) or share_of(self, tenant)
                self._shares[tenant] = share
        return share

    def problem_count(self) -> int:
        """How many problems are known: those of all, and those of the tenants that were asked for."""
        return len(self.problems) + sum(len(share.problems) for share in list(self._shares.values()))

    def feature(self, name: str) -> Mapping[str, Any] | None:
        """The raw feature of this name."""
        return self._features.get(name)

    def models_of(self, tenant: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The models' flags that may concern the tenant: a walk over all of them for each tenant would be a long one."""
        named = self._named.get(tenant, {})
        return [
            (model, feature)
            for model, feature in self.models.items()
            if feature["name"] in named or feature["name"] in self._open or not feature.get("strategies")
        ]

    def candidates(self, feature: Mapping[str, Any], tenant: str) -> list[tuple[int, Any]]:
        """The feature's raw strategies that may concern the tenant, with their numbers: all but those that name others."""
        name, strategies = feature["name"], feature.get("strategies") or []
        if not isinstance(strategies, list):
            return [(0, None)]
        numbers = sorted({*self._named.get(tenant, {}).get(name, ()), *self._open.get(name, ())})
        return [(number, strategies[number]) for number in numbers]

    def constraints(self, strategy: Mapping[str, Any]) -> list[Any]:
        """Those of the raw strategy and of its segments. Raises Unreadable."""
        found = [*_listed(strategy, "constraints")]
        for number in _listed(strategy, "segments"):
            segment = self._segments.get(number) if isinstance(number, int) else None
            if segment is None:
                raise Unreadable(f"names the segment {str(number)[:40]!r}, which the document does not have.")
            found += _listed(segment, "constraints")
        return found

    def _index(self) -> None:
        """Strategies by the tenants whom a plain list names, and those that every tenant must look at."""
        parents = {parent.flag for feature in self.models.values() for parent in dependencies_of(feature)}
        features = [*self.models.values(), *(each for name in parents if (each := self.feature(name)) is not None)]
        for feature in features:
            name, strategies = feature["name"], feature.get("strategies") or []
            for number, strategy in enumerate(strategies if isinstance(strategies, list) else ()):
                if (tenants := self._listed(strategy)) is None:
                    self._open.setdefault(name, []).append(number)
                for tenant in tenants or ():
                    self._named.setdefault(tenant, {}).setdefault(name, []).append(number)
            if not isinstance(strategies, list):
                self._open[name] = [0]

    def _listed(self, strategy: Any) -> set[str] | None:
        """The tenants that the strategy names by a plain list; None where it names them otherwise, or cannot be read."""
        try:
            constraints = self.constraints(strategy) if isinstance(strategy, Mapping) else []
        except Unreadable:
            return None
        for each in constraints:
            if is_on_tenant(each) and each.get("operator") == "IN" and not each.get("inverted"):
                values = each.get("values")
                if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
                    return set(values)
        return None

    def _general(self) -> list[str]:
        """What is wrong with flags of models whomever they concern."""
        found = []
        for model, feature in self.models.items():
            try:
                check_name("model", model)
            except InvalidInput as error:
                found.append(f"Flag {MODEL_PREFIX + model[:80]!r}: {error.message}")
                continue
            named = [feature, *(each for parent in dependencies_of(feature) if (each := self.feature(parent.flag)) is not None)]
            found += [problem for each in named for problem in self._open_to_all(each)] if not self.shared_flags else []
        return sorted(set(found))

    def _open_to_all(self, feature: Mapping[str, Any]) -> list[str]:
        more = "it counts for nobody unless TURNOUT_UNLEASH_SHARED_FLAGS is on."
        strategies = feature.get("strategies")
        if not strategies:
            return [f"Flag {feature['name']!r} has no strategy, which would be everybody: {more}"]
        found = []
        for number, strategy in enumerate(strategies if isinstance(strategies, list) else []):
            try:
                if isinstance(strategy, Mapping) and not any(is_on_tenant(each) for each in self.constraints(strategy)):
                    found.append(f"Flag {feature['name']!r}: strategies[{number}] has no condition on tenantId: {more}")
            except Unreadable as error:
                found.append(f"Flag {feature['name']!r}: strategies[{number}] {error}")
        return found


def _listed(raw: Mapping[str, Any], key: str) -> list[Any]:
    found = raw.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Unreadable(f"has {key} that are no list.")
    return found


def _refused(field: str, text: str) -> FlagsRefused:
    return FlagsRefused([Problem("", field, text)])
