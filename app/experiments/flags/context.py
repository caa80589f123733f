"""What the evaluator knows of a request: the unit's hash, the attributes that the client sent, and the tenant of the token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from app.errors import InvalidInput
from app.experiments.flags.document import RESERVED, TENANT_ID

Context = bytes  # as the evaluator takes it

MOST_ATTRIBUTES = 50
LONGEST = 256  # characters of an attribute's name and of its value


def check_attributes(attributes: Any) -> dict[str, str] | None:
    """The attributes of a request as they may reach flags; None where there are none. Raises InvalidInput that names the wrong one."""
    if attributes is None:
        return None
    if not isinstance(attributes, Mapping):
        raise InvalidInput('attributes must be an object of texts, like {"country": "NO", "appVersion": "3.2.0"}.')
    if len(attributes) > MOST_ATTRIBUTES:
        raise InvalidInput(f"attributes has {len(attributes)} entries; at most {MOST_ATTRIBUTES} are taken.")
    for name, value in attributes.items():
        if not _is_text(name) or not name:
            raise InvalidInput(f"attributes: a name must be a text of 1 to {LONGEST} characters without NUL or lone surrogates.")
        if name in RESERVED:
            raise InvalidInput(f"attributes: {name!r} is set by the service and never by the caller: leave it out.")
        if not _is_text(value):
            raise InvalidInput(
                f'attributes: {name!r} must be a text of at most {LONGEST} characters, like "3.2.0"; numbers are sent as texts.'
            )
    return dict(attributes) or None


def context_of(tenant: str, unit_hash: str, attributes: Mapping[str, str] | None) -> Context:
    """The context of one request. What the caller says of itself cannot replace the tenant or the unit. Raises InvalidInput."""
    properties = {name: value for name, value in attributes.items() if name not in RESERVED} if attributes else {}
    properties[TENANT_ID] = tenant
    try:
        return orjson.dumps({"userId": unit_hash, "properties": properties})
    except TypeError as error:  # attributes that nobody checked
        raise InvalidInput("attributes must be an object of texts without lone surrogates.") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
