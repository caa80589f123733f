"""What the registry knows: models, versions, aliases, promotions. Frozen values; status words are the contract's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from app.kernel.proof import Proof
    from app.kernel.signature import Column, Signature, Task

PRODUCTION = "production"


class VersionStatus(StrEnum):
    VALIDATING = "VALIDATING"
    READY = "READY"
    FAILED = "FAILED"
    WITHDRAWN = "WITHDRAWN"
    ARCHIVED = "ARCHIVED"


class RuntimeKind(StrEnum):
    ONNX = "ONNX"
    SKLEARN = "SKLEARN"
    OPEN_INFERENCE = "OPEN_INFERENCE"


class FallbackKind(StrEnum):
    PREVIOUS = "PREVIOUS"
    VERSION = "VERSION"
    ANSWER = "ANSWER"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Fallback:
    """What answers where the routed version cannot."""

    kind: FallbackKind
    version: int | None = None
    answer: Any = None

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "version": self.version, "answer": self.answer}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fallback:
        return cls(FallbackKind(data["kind"]), data.get("version"), data.get("answer"))


@dataclass(frozen=True, slots=True)
class Model:
    model_id: UUID
    name: str
    task: Task
    description: str | None
    fallback: Fallback | None
    cache_seconds: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version comes from, in the data scientist's words."""

    training_data: str | None = None
    git_commit: str | None = None
    pipeline_run: str | None = None
    parent_version: int | None = None  # of the same model

    def to_json(self) -> dict[str, Any]:
        return {
            "trainingData": self.training_data,
            "gitCommit": self.git_commit,
            "pipelineRun": self.pipeline_run,
            "parentVersion": self.parent_version,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lineage:
        return cls(data.get("trainingData"), data.get("gitCommit"), data.get("pipelineRun"), data.get("parentVersion"))


@dataclass(frozen=True, slots=True)
class Origin:
    """The version of another tenant that this one was published from."""

    tenant: str
    model: str
    version: int
    artifact_digest: str  # sha256, hex

    def to_json(self) -> dict[str, Any]:
        return {"tenant": self.tenant, "model": self.model, "version": self.version, "artifactDigest": self.artifact_digest}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Origin:
        return cls(data["tenant"], data["model"], data["version"], data["artifactDigest"])


@dataclass(frozen=True, slots=True)
class VersionEnvironment:
    """What was found out at inspection: the versions that serve, the scikit-learn that trained, the estimator."""

    python: str | None
    scikit_learn: str | None
    numpy: str | None
    trained_with: str | None
    estimator: str | None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VersionEnvironment:
        named = (data.get(name) or None for name in ("python", "scikit-learn", "numpy", "trained_with", "estimator"))
        return cls(*named)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    model_id: UUID
    model: str  # the model's name
    number: int
    status: VersionStatus
    status_reason: str | None
    artifact_digest: str | None  # sha256, hex
    size_bytes: int | None
    runtime: RuntimeKind | None
    columns: tuple[Column, ...]  # empty until inspected, unless given
    inspected: Signature | None  # set once READY
    classes: tuple[str, ...] | None
    metrics: Any
    tags: Any
    description: str | None
    created_at: datetime
    created_by: str
    lineage: Lineage | None = None
    environment: VersionEnvironment | None = None  # set once inspected
    warning: str | None = None
    artifact_deleted_at: datetime | None = None  # by retention; the record stays
    proof: Proof | None = None  # set once READY
    origin: Origin | None = None  # where another tenant published it here


@dataclass(frozen=True, slots=True)
class Alias:
    model_id: UUID
    model: str
    name: str
    number: int
    revision: int


@dataclass(frozen=True, slots=True)
class ReplicaAck:
    """A replica that a change is waited for at; `applied_at`: since when it serves it, None where that was not heard yet."""

    replica: str
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class Promotion:
    model: str
    alias: str
    version: int
    previous_version: int | None
    revision: int
    at: datetime
    by: str
    reason: str | None
    model_id: UUID
    generation: int | None  # of routing, with which it was announced; None: made before this was written down
    applied_by: tuple[ReplicaAck, ...] = ()
    applied_everywhere: bool = False
    still_served_by: tuple[str, ...] = ()  # experiments in which the previous version answers on


@dataclass(frozen=True, slots=True)
class PromotionBlocker:
    code: str
    message: str
    overridable: bool

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "overridable": self.overridable}


@dataclass(frozen=True, slots=True)
class Artifact:
    digest: str  # sha256, hex
    size_bytes: int


@dataclass(frozen=True, slots=True)
class VersionRegistration:
    """What a data scientist sends to register a version; checked by `rules.check_registration`."""

    model: str
    task: Task
    artifact_digest: str
    columns: tuple[Column, ...] | None
    sample: tuple[Any, ...]
    metrics: Any
    tags: Any
    description: str | None
    lineage: Lineage | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class VersionRoute:
    """As much of a version as serving it takes."""

    model_id: UUID
    number: int
    task: Task
    status: VersionStatus
    artifact_digest: str
    size_bytes: int
    signature: Signature
    classes: tuple[str, ...] | None
    runtime: RuntimeKind = RuntimeKind.SKLEARN
    compiled_digest: str | None = None  # sha256, hex; with ONNX
    compiled_size_bytes: int = 0
    tolerance: float = 0.0  # of the proof, as its `middle`: how far a compiled answer may be from scikit-learn's
    middle: float = 0.0

    @property
    def is_compiled(self) -> bool:
        """Whether it is served by its compiled graph."""
        return self.runtime is RuntimeKind.ONNX and self.compiled_digest is not None


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """A model's aliases and the versions that they point at, or that somebody needs besides."""

    model_id: UUID
    name: str
    task: Task
    aliases: dict[str, int]
    versions: dict[int, VersionRoute]
    cache_seconds: int = 0  # how long an answer may be given again to the same input; 0: never
    fallback: Fallback | None = None  # never of the kind NONE
    previous: dict[str, int] = field(default_factory=dict)  # by alias: what a rollback would go back to; where the fallback is PREVIOUS


@dataclass(frozen=True, slots=True)
class PendingValidation:
    tenant_id: UUID
    model_id: UUID
    number: int
