"""A reason is bounded wherever one is given, before anything is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from app.audit.rules import LONGEST_REASON, check_optional_reason, check_reason
from app.errors import InvalidInput
from app.experiments.service import ExperimentService
from app.graphql.schema import build_schema
from app.kernel.clock import Deadline
from app.kernel.context import RequestContext, Role
from app.registry.service import RegistryService
from app.tenancy.erasures import ErasureService
from app.tenancy.life import TenantLife
from app.tenancy.permissions import actions_of
from app.tenancy.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.unit
ROLES = frozenset(Role)
CTX = RequestContext(UUID(int=1), "clinic", "ada", ROLES, actions_of(ROLES), None, "r-1", Deadline.after(20))


def bare(kind: type[Any]) -> Any:
    """A service with nothing behind it: what it refuses, it refuses by itself."""
    return object.__new__(kind)


CALLS: dict[str, Callable[[str], Awaitable[Any]]] = {
    "promote": lambda why: bare(RegistryService).promote(CTX, "risk", 1, reason=why),
    "rollback": lambda why: bare(RegistryService).rollback(CTX, "risk", reason=why),
    "withdrawModelVersion": lambda why: bare(RegistryService).withdraw(CTX, "risk", 1, why),
    "archiveModelVersion": lambda why: bare(RegistryService).archive(CTX, "risk", 1, why),
    "stopExperiment": lambda why: bare(ExperimentService).stop(CTX, "boost", why),
    "concludeExperiment": lambda why: bare(ExperimentService).conclude_in(None, CTX, "boost", None, why),
    "suspendTenant": lambda why: bare(TenantLife).suspend(CTX, "clinic", why),
    "resumeTenant": lambda why: bare(TenantLife).resume(CTX, "clinic", why),
    "eraseTenant": lambda why: bare(TenantLife).erase(CTX, "clinic", "clinic", why),
    "revokeTokens": lambda why: bare(Revocations).revoke(CTX, None, None, "a-token", why),
    "eraseUnit": lambda why: bare(ErasureService).erase_unit(CTX, "u-1", why),
}


def test_every_mutation_that_takes_a_reason_is_here() -> None:
    mutations = build_schema()._schema.mutation_type
    assert mutations is not None
    assert {name for name, field in mutations.fields.items() if "reason" in field.args} == set(CALLS)


@pytest.mark.parametrize("mutation", CALLS)
@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("r" * (LONGEST_REASON + 1), "^reason has 1,001 characters; at most 1,000 are kept"),
        ("a\0b", "^reason holds a character that cannot be stored"),
        ("a\ud800", "^reason holds a character that cannot be stored"),
    ],
)
async def test_no_mutation_takes_a_reason_that_is_too_long_or_cannot_be_stored(mutation: str, reason: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        await CALLS[mutation](reason)


def test_a_reason_of_a_thousand_characters_is_taken_unchanged() -> None:
    text = "é" * LONGEST_REASON
    assert check_reason(text) == check_optional_reason(text) == text
    assert check_optional_reason(None) is None
    with pytest.raises(InvalidInput, match="reason is empty"):
        check_reason(" \n")
