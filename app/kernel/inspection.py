"""What the registry asks of the sandbox about a new artifact, and what it hears back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.kernel.signature import Column, Signature, Task


@dataclass(frozen=True, slots=True)
class InspectionRequest:
    task: Task
    columns: tuple[Column, ...] | None  # as the data scientist gave them; None: read them from the estimator and the sample
    sample: tuple[Any, ...]  # rows as sent: objects or lists; may be empty


@dataclass(frozen=True, slots=True)
class InspectionReport:
    """`failure` says why the artifact cannot be served, in words a data scientist can act on; None: it can, and `signature` is set."""

    failure: str | None
    signature: Signature | None
    classes: tuple[str, ...] | None  # str() of the estimator's classes, in their order; None for regressors
    estimator: str  # "Pipeline(StandardScaler, LogisticRegression)"
    environment: Mapping[str, str]  # versions: python, scikit-learn, numpy, and trained_with where the artifact says
    warnings: tuple[str, ...]
