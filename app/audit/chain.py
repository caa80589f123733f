"""The chain that holds a tenant's audit log together: each seal covers an entry and the seal before it.

Who has no key of the tenant cannot make a seal that fits, so an entry that was changed, taken out, put in or moved is found; that the
newest ones were cut off is found by the head, which is kept apart and written to the log daily.
Source: RFC 2104 (HMAC); Schneier and Kelsey, "Secure audit logs to support computer forensics", 1999, for the chain.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

_START = b"turnout/audit-chain/1"
_PERSON = "person_"
_PERSON_BYTES = 16


@dataclass(frozen=True, slots=True)
class Link:
    """An entry as it is sealed. `actor` is the pseudonym, `before` and `after` are the texts that the database gives of its JSON.

    `sequence` and `seal` are None for entries that are older than the chain.
    """

    sequence: int | None
    id: UUID
    at: datetime
    actor: str
    action: str
    subject: str
    before: str | None
    after: str | None
    reason: str | None
    seal: bytes | None = None


def start(key: bytes, tenant_id: UUID, older: Iterable[Link]) -> bytes:
    """The seal before the first: it covers the entries that are `older` than the chain, by time and id."""
    digest = hashlib.sha256()
    for link in older:
        digest.update(hashlib.sha256(_canonical(link)).digest())
    return hmac.digest(key, _START + tenant_id.bytes + digest.digest(), "sha256")


def seal(key: bytes, previous: bytes, link: Link) -> bytes:
    """32 bytes that follow from the key, the seal before and everything in the entry."""
    return hmac.digest(key, previous + _canonical(link), "sha256")


def pseudonym(key: bytes, subject: str) -> str:
    """The name of a person in one tenant's log: always the same, and nobody without the key can say or try whose it is."""
    return _PERSON + hmac.digest(key, subject.encode("utf-8", "surrogatepass"), "sha256")[:_PERSON_BYTES].hex()


def is_pseudonym(text: str) -> bool:
    return text.startswith(_PERSON) and len(text) == len(_PERSON) + 2 * _PERSON_BYTES


def _canonical(link: Link) -> bytes:
    """One text for one entry: JSON in ASCII with keys in order."""
    fields = {
        "sequence": link.sequence,
        "id": link.id.hex,
        "at": link.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": link.actor,
        "action": link.action,
        "subject": link.subject,
        "before": link.before,
        "after": link.after,
        "reason": link.reason,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")
