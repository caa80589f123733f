"""Raw client features into checked values: shapes and types here, meanings in `checking.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.experiments.flags.document import Document, Reading


def read_document(raw: bytes | Mapping[str, Any], revision: int | None = None) -> Document:
    """The document; `revision` where it is not the document's own `meta.revisionId`. Raises FlagsRefused with every problem found."""
    raise NotImplementedError


def read_features(features: Any, segments: Any = None) -> Reading:
    """The flags of a list of raw features that mean what they say, and the problems of the others. Raises nothing.

    `segments` is the document's own list of them, where features name segments by number; their constraints are put in their place.
    A flag whose parent has a problem has one, too.
    """
    raise NotImplementedError
