"""Raw client features into checked values: shapes and types here, meanings in `checking.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from app.experiments.flags.checking import MOST_FLAGS, problems_of
from app.experiments.flags.document import (
    DEFAULT,
    FLEXIBLE_ROLLOUT,
    OF_VALUES,
    USER_WITH_ID,
    Choice,
    Constraint,
    Document,
    Flag,
    FlagsRefused,
    Parent,
    Problem,
    Reading,
    Strategy,
)

MOST_BYTES = 8 * 2**20
_PERCENT = re.compile(r"0|[1-9][0-9]?|100")
_Segments = Mapping[int, tuple[Constraint, ...]]


class _FlawError(Exception):
    """One field that is not of the form it must have."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(field, text)
        self.field, self.text = field, text


def read_document(raw: bytes | Mapping[str, Any], revision: int | None = None) -> Document:
    """The document; `revision` where it is not the document's own `meta.revisionId`. Raises FlagsRefused with every problem found."""
    if isinstance(raw, bytes):
        raw = _parsed(raw)
    try:
        if not isinstance(raw, Mapping):
            raise _FlawError("", f"must be an object, not {_kind(raw)}.")
        if revision is None:
            meta = _get(raw, "meta", Mapping, "", {})
            revision = _get(meta, "revisionId", int, "meta.")
        features = _get(raw, "features", list, "")
    except _FlawError as flaw:
        raise FlagsRefused([Problem("", flaw.field, flaw.text)]) from None
    return Document(revision, read_features(features, raw.get("segments")).or_refused())


def read_features(features: Any, segments: Any = None) -> Reading:
    """The flags of a list of raw features that mean what they say, and the problems of the others. Raises nothing.

    `segments` is the document's own list of them, where features name segments by number; their constraints are put in their place.
    A flag whose parent has a problem has one, too.
    """
    if not isinstance(features, list | tuple) or len(features) > MOST_FLAGS:
        wrong = f"must be a list of at most {MOST_FLAGS:,} flags, not {_kind(features)}."
        return Reading(problems=(Problem("", "features", wrong),))
    problems: list[Problem] = []
    known = _segments(segments, problems)
    flags = []
    for number, raw in enumerate(features):
        name = raw.get("name") if isinstance(raw, Mapping) else None
        try:
            flags.append(_flag(raw, known))
        except _FlawError as flaw:
            shown = name[:200] if isinstance(name, str) and name else f"features[{number}]"
            problems.append(Problem(shown, flaw.field, flaw.text))
    while found := problems_of(flags):  # once more without those with a problem: they may be the parents of others
        problems += found
        bad = {problem.flag for problem in found}
        flags = [flag for flag in flags if flag.name not in bad] if "" not in bad else []
    return Reading(tuple(flags), tuple(problems))


def _parsed(raw: bytes) -> Any:
    if len(raw) > MOST_BYTES:
        raise FlagsRefused([Problem("", "", f"has {len(raw):,} bytes; at most {MOST_BYTES:,} are read.")])
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise FlagsRefused([Problem("", "", f"is not JSON: {error}.")]) from None


def _flag(raw: Any, segments: _Segments) -> Flag:
    if not isinstance(raw, Mapping):
        raise _FlawError("", f"must be an object, not {_kind(raw)}.")
    variants = _list(raw, "variants", "")
    for number, variant in enumerate(variants):
        if isinstance(variant, Mapping) and variant.get("overrides"):
            raise _FlawError(f"variants[{number}].overrides", "are not taken: give these units a strategy of their own, before the others.")
    stickiness = {_get(variant, "stickiness", str, f"variants[{n}].", DEFAULT) for n, variant in enumerate(variants)}
    if len(stickiness) > 1:
        raise _FlawError("variants", f"have different stickinesses: {', '.join(sorted(stickiness))[:100]}.")
    return Flag(
        name=_get(raw, "name", str, ""),
        enabled=_get(raw, "enabled", bool, ""),
        strategies=tuple(_strategy(each, f"strategies[{n}]", segments) for n, each in enumerate(_list(raw, "strategies", ""))),
        choices=tuple(_choice(each, f"variants[{n}]") for n, each in enumerate(variants)),
        stickiness=next(iter(stickiness), DEFAULT),
        parents=tuple(_parent(each, f"dependencies[{n}]") for n, each in enumerate(_list(raw, "dependencies", ""))),
    )


def _strategy(raw: Any, where: str, segments: _Segments) -> Strategy:
    name = _get(raw, "name", str, f"{where}.")
    parameters = _get(raw, "parameters", Mapping, f"{where}.", {})
    inside = f"{where}.parameters."
    constraints = [_constraint(each, f"{where}.constraints[{n}]") for n, each in enumerate(_list(raw, "constraints", f"{where}."))]
    for number, segment in enumerate(_list(raw, "segments", f"{where}.")):
        if isinstance(segment, bool) or not isinstance(segment, int) or segment not in segments:
            raise _FlawError(
                f"{where}.segments[{number}]", f"is {str(segment)[:40]!r}, which is no segment of the document without a flaw."
            )
        constraints += segments[segment]
    return Strategy(
        name=name,
        constraints=tuple(constraints),
        choices=tuple(_choice(each, f"{where}.variants[{n}]") for n, each in enumerate(_list(raw, "variants", f"{where}."))),
        rollout=_percent(parameters, inside) if name == FLEXIBLE_ROLLOUT else 100,
        stickiness=_get(parameters, "stickiness", str, inside, DEFAULT),
        group_id=_get(parameters, "groupId", str, inside, "") or None,
        user_ids=_ids(parameters, inside) if name == USER_WITH_ID else (),
    )


def _percent(parameters: Mapping[str, Any], where: str) -> int:
    rollout = _get(parameters, "rollout", str, where)
    if not _PERCENT.fullmatch(rollout):
        raise _FlawError(
            f"{where}rollout", f"is {rollout[:40]!r}: it must be a whole percent from 0 to 100, as a text; else nobody is let in."
        )
    return int(rollout)


def _ids(parameters: Mapping[str, Any], where: str) -> tuple[str, ...]:
    return tuple(unit.strip() for unit in _get(parameters, "userIds", str, where).split(",") if unit.strip())


def _constraint(raw: Any, where: str) -> Constraint:
    operator = _get(raw, "operator", str, f"{where}.")
    values: tuple[str, ...]
    if operator in OF_VALUES:
        listed = _list(raw, "values", f"{where}.")
        for number, value in enumerate(listed):
            if not isinstance(value, str):
                raise _FlawError(f"{where}.values[{number}]", f"must be a text, not {_kind(value)}.")
        values = tuple(listed)
    else:
        value = raw.get("value")
        if value is not None and not isinstance(value, str):
            raise _FlawError(f"{where}.value", f"must be a text, not {_kind(value)}.")
        values = () if value is None else (value,)
    return Constraint(
        attribute=_get(raw, "contextName", str, f"{where}."),
        operator=operator,
        values=values,
        inverted=_get(raw, "inverted", bool, f"{where}.", False),
        case_insensitive=_get(raw, "caseInsensitive", bool, f"{where}.", False),
    )


def _choice(raw: Any, where: str) -> Choice:
    payload = _get(raw, "payload", Mapping, f"{where}.", {})
    return Choice(
        name=_get(raw, "name", str, f"{where}."),
        weight=_get(raw, "weight", int, f"{where}."),
        payload=_get(payload, "value", str, f"{where}.payload.") if payload else None,
        payload_type=_get(payload, "type", str, f"{where}.payload.") if payload else "json",
    )


def _parent(raw: Any, where: str) -> Parent:
    names = _list(raw, "variants", f"{where}.") if isinstance(raw, Mapping) else []
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise _FlawError(f"{where}.variants[{number}]", f"must be a text, not {_kind(name)}.")
    return Parent(_get(raw, "feature", str, f"{where}."), _get(raw, "enabled", bool, f"{where}.", True), tuple(names))


def _segments(raw: Any, problems: list[Problem]) -> dict[int, tuple[Constraint, ...]]:
    found: dict[int, tuple[Constraint, ...]] = {}
    if raw is not None and not isinstance(raw, list | tuple):
        problems.append(Problem("", "segments", f"must be a list, not {_kind(raw)}."))
        return found
    for number, segment in enumerate(raw or ()):
        where = f"segments[{number}]"
        try:
            constraints = _list(segment, "constraints", f"{where}.")
            found[_get(segment, "id", int, f"{where}.")] = tuple(
                _constraint(each, f"{where}.constraints[{n}]") for n, each in enumerate(constraints)
            )
        except _FlawError as flaw:
            problems.append(Problem("", flaw.field, flaw.text))
    return found


_MISSING: Any = object()


def _get(raw: Any, key: str, kind: Any, where: str, default: Any = _MISSING) -> Any:
    """The value of the field; `default` where it is left out or null."""
    if not isinstance(raw, Mapping):
        raise _FlawError(where.rstrip("."), f"must be an object, not {_kind(raw)}.")
    value = raw.get(key)
    if value is None:
        if default is not _MISSING:
            return default
        raise _FlawError(f"{where}{key}", f"is missing: it must be {_WORDS[kind]}.")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _FlawError(f"{where}{key}", f"must be {_WORDS[kind]}, not {_kind(value)}.")
    return value


def _list(raw: Any, key: str, where: str) -> list[Any]:
    value: list[Any] = _get(raw, key, list, where, [])
    return value


_WORDS: dict[Any, str] = {str: "a text", int: "a whole number", bool: "true or false", Mapping: "an object", list: "a list"}


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    for kind, word in ((bool, "true or false"), (str, "a text"), (int, "a whole number"), (float, "a number with a fraction")):
        if isinstance(value, kind):
            return word
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list | tuple) else type(value).__name__
