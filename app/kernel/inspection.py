"""What the registry asks of the sandbox about a new artifact, what it hears back, and how well the sandbox holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import ModelUnavailable
from app.kernel.signature import Column, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.kernel.signature import Signature


class Undecided(ModelUnavailable):
    """An inspection that began and found nothing out, for no fault of the artifact that anybody knows: to be asked again, not for ever."""


@dataclass(frozen=True, slots=True)
class InspectionRequest:
    task: Task
    columns: tuple[Column, ...] | None  # as the data scientist gave them; None: read them from the estimator and the sample
    sample: tuple[Any, ...]  # rows as sent: objects or lists; may be empty

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task.value,
            "columns": None if self.columns is None else [column.to_json() for column in self.columns],
            "sample": list(self.sample),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> InspectionRequest:
        columns = data["columns"]
        return cls(
            task=Task(data["task"]),
            columns=None if columns is None else tuple(Column.from_json(column) for column in columns),
            sample=tuple(data["sample"]),
        )


@dataclass(frozen=True, slots=True)
class InspectionReport:
    """`failure` says why the artifact cannot be served, in words a data scientist can act on; None: it can, and `signature` is set."""

    failure: str | None
    signature: Signature | None
    classes: tuple[str, ...] | None  # str() of the estimator's classes, in their order; None for regressors
    estimator: str  # "Pipeline(StandardScaler, LogisticRegression)"
    environment: Mapping[str, str]  # versions: python, scikit-learn, numpy, and trained_with where the artifact says
    warnings: tuple[str, ...]

    @classmethod
    def failed(cls, reason: str, estimator: str = "", environment: Mapping[str, str] | None = None) -> InspectionReport:
        """A report that only says why not."""
        return cls(failure=reason, signature=None, classes=None, estimator=estimator, environment=environment or {}, warnings=())

    def to_json(self) -> dict[str, Any]:
        return {
            "failure": self.failure,
            "signature": None if self.signature is None else self.signature.to_json(),
            "classes": None if self.classes is None else list(self.classes),
            "estimator": self.estimator,
            "environment": dict(self.environment),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Confinement:
    """What this machine's kernel holds a model with, as a locked child measured it."""

    seccomp: bool  # an allow-list of system calls: no file, socket, process or shared memory can be made
    landlock_abi: int  # 0: the kernel has none, and files are refused by seccomp alone
    own_uid: bool  # each child is an unprivileged user of its own (needs root)

    @property
    def confined(self) -> bool:
        """Whether artifacts of strangers may be loaded here."""
        return self.seccomp
