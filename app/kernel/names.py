"""The naming rule that models, aliases, tenants and experiments share, and what a text may be to be kept."""

from __future__ import annotations

import re

from app.errors import InvalidInput

MAX_NAME = 48
MAX_TENANT = 39
MAX_UNIT_BYTES = 256
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def check_name(kind: str, name: str, longest: int = MAX_NAME) -> str:
    """`name` unchanged; raises InvalidInput that says what a good name of this `kind` looks like."""
    if len(name) <= longest and _NAME.fullmatch(name):
        return name
    shown = name if len(name) <= longest else name[:longest] + "…"
    raise InvalidInput(
        f"{shown!r} is no {kind} name: small letters, digits and single hyphens, beginning with a letter, "
        f"at most {longest} characters, like 'credit-risk-2'."
    )


def check_unit(unit: str) -> str:
    """`unit` unchanged, as sent; raises InvalidInput where it is empty or longer than 256 bytes of UTF-8."""
    try:
        size = len(unit.encode())
    except UnicodeEncodeError:
        raise InvalidInput("unit is not valid Unicode: it holds a lone surrogate.") from None
    if 1 <= size <= MAX_UNIT_BYTES:
        return unit
    raise InvalidInput(f"unit has {size} bytes of UTF-8; it must have 1 to {MAX_UNIT_BYTES}.")


def folded(name: str) -> str:
    """The name without its hyphens: two models whose names fold alike would be one type in generated code (CreditRisk, Creditrisk)."""
    return name.replace("-", "")


def is_storable(text: str) -> bool:
    """Whether PostgreSQL has a way to write this text."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
