"""Which documents may be registered: their ids, their number and their size. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from app.errors import Conflict, InvalidInput, QuotaExceeded
from app.tenancy.documents.types import DocumentText, Shelf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_DOCUMENTS = 1_000  # of a tenant, and for all tenants together
MOST_BYTES = 256 * 1024  # of their texts: every serving process holds them
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_PREFIX = "sha256:"


def known_id(sent: str) -> str:
    """The id that a client means: GraphQL over HTTP writes a sha256 with a prefix, manifests without."""
    bare = sent.removeprefix(_PREFIX)
    return bare.lower() if _SHA256.fullmatch(bare) else sent


def identified(given: str | None, text: str) -> DocumentText:
    """The document under the id given, or under its sha256. Raises InvalidInput that says what an id looks like."""
    try:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        raise InvalidInput("A document holds half of a surrogate pair, which no UTF-8 can say.") from None
    if "\0" in text:
        raise InvalidInput("A document holds the character NUL, which cannot be stored.")
    if given is None:
        return DocumentText(sha256, text, sha256)
    own = known_id(given)
    if not _ID.fullmatch(own):
        raise InvalidInput(f"The id {given[:140]!r} must be 1 to 128 letters, digits and _ . : - of ASCII.")
    if _SHA256.fullmatch(own) and own != sha256:
        raise InvalidInput(
            f"The id {own} is not the SHA-256 of its text, which is {sha256}. An id of 64 hexadecimal digits must be it: "
            "clients take it for that."
        )
    return DocumentText(own, text, sha256)


def check_distinct(documents: Sequence[DocumentText]) -> dict[str, DocumentText]:
    """By id; one that stands twice with one text is one. Raises InvalidInput where the texts differ."""
    found: dict[str, DocumentText] = {}
    for document in documents:
        if found.setdefault(document.id, document).text != document.text:
            raise InvalidInput(f"The id {document.id!r} stands twice with different texts.")
    return found


def news(there: Mapping[str, str], given: Mapping[str, DocumentText], *, replace: bool) -> list[DocumentText]:
    """What of `given` is to be written where `there` (id to text) is registered.

    Raises Conflict where an id is another text's, unless that is replaced, and QuotaExceeded where all would be too much.
    """
    new = [document for document in given.values() if there.get(document.id) != document.text]
    taken = [document.id for document in new if document.id in there]
    if taken and not replace:
        more = f" (and {len(taken) - 1} others)" if len(taken) > 1 else ""
        raise Conflict(
            f"The id {taken[0]!r}{more} is registered with another text, which clients that are out there mean by it. "
            "Give the new text another id, or replace the old one."
        )
    texts = {**there, **{document.id: document.text for document in new}}
    if len(texts) > MOST_DOCUMENTS:
        raise QuotaExceeded(
            f"That would be {len(texts):,} documents; at most {MOST_DOCUMENTS:,} are held. Remove some that no client sends."
        )
    size = sum(len(text.encode()) for text in texts.values())
    if size > MOST_BYTES:
        raise QuotaExceeded(f"The documents would hold {size:,} bytes; at most {MOST_BYTES:,} are held. Remove some that no client sends.")
    return new


def shelf_of(documents: Iterable[tuple[str, str]]) -> Shelf:
    """From ids and texts as they are stored. An id goes before another document's sha256."""
    by_id, by_sha256 = {}, {}
    for given, text in documents:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        by_id[given] = by_sha256[sha256] = DocumentText(given, text, sha256)
    return Shelf({**by_sha256, **by_id})
