"""What texts about tenants may be. Pure."""

from __future__ import annotations

from app.errors import InvalidInput

LONGEST_NAME = 200
LONGEST_ISSUER = 500


def check_title(name: str) -> str:
    """The name that people see, unchanged; raises InvalidInput."""
    return _check_word("name", name, LONGEST_NAME)


def check_claim(what: str, value: str, longest: int = LONGEST_NAME) -> str:
    """A text as a token may carry it, unchanged; raises InvalidInput."""
    return _check_word(what, value, longest)


def _check_word(what: str, text: str, longest: int) -> str:
    # isprintable is False for lone surrogates and control characters, NUL among them.
    if 1 <= len(text) <= longest and text.isprintable() and text == text.strip():
        return text
    raise InvalidInput(f"{what} must be 1 to {longest} printable characters without spaces around them.")
