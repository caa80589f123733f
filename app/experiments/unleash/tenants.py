"""Whether a strategy of a flag server concerns a tenant. Pure.

A condition on `tenantId` is evaluated here and taken away, so that a tenant's engine holds no name of another tenant.
Source: Unleash's constraint operators, https://docs.getunleash.io/reference/activation-strategies#strategy-constraints
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.experiments.flags.document import (
    ADDRESS_OPERATOR,
    DATE_OPERATORS,
    NUMBER_OPERATORS,
    TENANT_ID,
    VERSION_OPERATORS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# What these compare with is never a tenant's name, which begins with a letter: the evaluator finds nothing and says no.
_NEVER = frozenset((*NUMBER_OPERATORS, *DATE_OPERATORS, *VERSION_OPERATORS, ADDRESS_OPERATOR))
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "STR_STARTS_WITH": str.startswith,
    "STR_ENDS_WITH": str.endswith,
    "STR_CONTAINS": str.__contains__,
}


class Unreadable(Exception):
    """A condition on the tenant that is not understood: its strategy counts for nobody."""


def is_on_tenant(constraint: Any) -> bool:
    """Whether the raw constraint is a condition on the tenant."""
    return isinstance(constraint, Mapping) and constraint.get("contextName") == TENANT_ID


def holds(constraint: Mapping[str, Any], tenant: str) -> bool:
    """Whether the raw condition on `tenantId` holds for the tenant. Raises Unreadable, whose text is the reason."""
    operator, inverted = constraint.get("operator"), constraint.get("inverted") or False
    if not isinstance(inverted, bool):
        raise Unreadable("has a condition on tenantId whose 'inverted' is neither true nor false.")
    if operator in _NEVER:
        return inverted
    if operator not in {"IN", "NOT_IN", *_TEXTS}:
        known = ", ".join(("IN", "NOT_IN", *_TEXTS))
        raise Unreadable(f"has a condition on tenantId with the operator {str(operator)[:40]!r}: it must be one of {known}.")
    values = constraint.get("values")
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise Unreadable(f"has a condition on tenantId whose values are not a list of texts: {operator} takes at least one.")
    return _plain(str(operator), values, tenant, constraint.get("caseInsensitive") is True) != inverted


def _plain(operator: str, values: list[str], tenant: str, any_case: bool) -> bool:
    if operator in _TEXTS:
        says = _TEXTS[operator]
        return any(says(tenant.lower(), value.lower()) if any_case else says(tenant, value) for value in values)
    return (tenant in values) == (operator == "IN")
