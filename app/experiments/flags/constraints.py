"""What a constraint must look like to be read as it is meant. Pure but for regular expressions, which the evaluator itself judges.

Source: the evaluator's grammar; Semantic Versioning 2.0.0, https://semver.org; RFC 3339.
"""

from __future__ import annotations

import ipaddress
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from app.experiments.flags.document import (
    ADDRESS_OPERATOR,
    CURRENT_TIME,
    DATE_OPERATORS,
    NUMBER_OPERATORS,
    OF_VALUES,
    OPERATORS,
    PATTERN_OPERATOR,
    TENANT_ID,
    USER_ID,
    VERSION_OPERATORS,
)
from app.experiments.flags.engine import takes_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.experiments.flags.document import Constraint

LONGEST_PATTERN = 256
LONGEST_TEXT = 1_000
MOST_VALUES = 10_000
KNOWN = frozenset({USER_ID, TENANT_ID, CURRENT_TIME})  # of the context's own names those that are set
UNSET = frozenset({"sessionId", "remoteAddress", "environment", "appName"})

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?", re.ASCII)
_IDENTIFIER = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
VERSION = re.compile(
    rf"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?", re.ASCII
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MOST_OF_A_PART = 2**64  # of a semantic version


def is_unquotable(text: str) -> bool:
    """Whether the text would end the quotes that the evaluator puts around it without escaping anything."""
    return '"' in text or "\\" in text or _CONTROL.search(text) is not None


def flaws_of(constraint: Constraint) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it) of everything for which the evaluator would read "nobody", or something else than was meant."""
    yield from _of_name(constraint)
    operator, values = constraint.operator, constraint.values
    if operator not in OPERATORS:
        yield "operator", f"is {operator[:40]!r}: it must be one of {', '.join(OPERATORS)}."
        return
    if operator not in OF_VALUES:
        if len(values) != 1:
            yield "value", f"is missing: {operator} takes exactly one value."
            return
        if text := _flaw(operator, values[0]):
            yield "value", text
        return
    if not 1 <= len(values) <= MOST_VALUES:
        yield "values", f"has {len(values)} entries: {operator} takes 1 to {MOST_VALUES:,}."
    for number, value in enumerate(values[:MOST_VALUES]):
        if text := _flaw(operator, value):
            yield f"values[{number}]", text


def _of_name(constraint: Constraint) -> Iterator[tuple[str, str]]:
    name = constraint.attribute
    if not 1 <= len(name) <= LONGEST_TEXT or is_unquotable(name):
        yield (
            "contextName",
            f"is {name[:40]!r}: it must be a name of 1 to {LONGEST_TEXT:,} characters without quotes, backslashes or control characters.",
        )
    elif name in UNSET:
        yield "contextName", f"is {name!r}, which no prediction has: target by an attribute of the request."
    elif name == CURRENT_TIME and constraint.operator not in DATE_OPERATORS:
        yield "contextName", f"is 'currentTime', which {' and '.join(DATE_OPERATORS)} alone can read."


def _flaw(operator: str, value: str) -> str | None:
    if len(value) > LONGEST_TEXT:
        return f"has {len(value):,} characters: at most {LONGEST_TEXT:,} are taken."
    if _CONTROL.search(value):
        return "holds a control character or half of a surrogate pair."
    if value.endswith("\\"):
        return "ends with a backslash, which would swallow the quote that follows it."
    fits, what = _FORMS.get(operator, (None, ""))
    if fits is None or fits(value):
        return None
    return f"is {value[:40]!r}: {operator} takes {what}."


def is_number(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None and math.isfinite(float(value))


def is_version(value: str) -> bool:
    found = VERSION.fullmatch(value)
    return found is not None and all(int(part) < _MOST_OF_A_PART for part in found.groups()[:3])


def is_time(value: str) -> bool:
    if not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def is_network(value: str) -> bool:
    address, slash, bits = value.partition("/")
    if slash and not (bits.isascii() and bits.isdigit()):
        return False
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "%" not in address


def _is_pattern(value: str) -> bool:
    return len(value) <= LONGEST_PATTERN and takes_pattern(value)


_FORMS: dict[str, tuple[Callable[[str], bool], str]] = {
    **dict.fromkeys(NUMBER_OPERATORS, (is_number, "a finite number like 2.5")),
    **dict.fromkeys(DATE_OPERATORS, (is_time, "a time with a zone like 2026-03-01T12:00:00Z or 2026-03-01T12:00:00.000+02:00")),
    **dict.fromkeys(VERSION_OPERATORS, (is_version, "a semantic version like 2.10.0, without a leading v")),
    ADDRESS_OPERATOR: (is_network, "an address or a network like 10.0.0.0/8"),
    PATTERN_OPERATOR: (_is_pattern, f"a regular expression of at most {LONGEST_PATTERN} characters without look-around or back references"),
}
