"""What goes to a model's child and what became of it: requests, calls made of several, and failures told to people. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import ModelFailed
from app.kernel.tensors import joined
from app.prediction.quarantine import LATE, name_of
from app.prediction.worker import wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from app.errors import AppError
    from app.kernel.clock import Deadline
    from app.kernel.signature import Signature, Task
    from app.kernel.tensors import Batch, Scores


@dataclass(frozen=True, slots=True)
class Version:
    """What is served, and how long one call may be and take."""

    key: str
    digest: str
    artifact: Path
    signature: Signature
    task: Task
    classes: tuple[str, ...]
    rows_a_call: int = 10_000
    patience_s: float = 2.0  # a call runs at least so long before the child is killed, however short its deadline was


@dataclass(slots=True, eq=False)
class Request:
    """One caller's rows. `alone`: sent in a call of its own, for a call with it failed; `suspect`: a worker died on its input;
    `held`: and another process tries one just now.
    """

    batch: Batch
    deadline: Deadline
    answer: asyncio.Future[Scores]
    alone: bool = False
    suspect: bool = False
    held: bool = False
    _name: bytes | None = None

    @property
    def name(self) -> bytes:
        """Its input's name, by which it is quarantined."""
        if self._name is None:
            self._name = name_of(self.batch)
        return self._name


def fail(requests: Iterable[Request], error: AppError) -> None:
    """Tells each of them that still waits, by an error of its own."""
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(type(error)(error.message, **error.details))


def model_failed(problem: str, got: str) -> ModelFailed:
    """`problem`: ESTIMATOR (it raised), BAD_OUTPUT, WORKER_DIED, QUARANTINED or ENCODING; `got`: for people."""
    return ModelFailed(
        f"The model failed on this input: {got}" if problem == "ESTIMATOR" else got,
        problems=[{"name": None, "problem": problem, "expected": "an answer for each row", "got": got}],
    )


def quarantined(status: int, *, now: bool = False) -> ModelFailed:
    """`status`: how the last worker ended; `now`: it did on this very request."""
    problem, why = "WORKER_DIED" if now else "QUARANTINED", "it took too long" if status == LATE else describe_fate({"exit": status})
    return model_failed(problem, f"Model workers ended on this input twice ({why}): it is refused for some minutes.")


def encoded(batches: Sequence[Batch]) -> tuple[dict[str, Any], list[bytes]] | ModelFailed:
    """Header and parts of a call with all the rows."""
    try:
        return wire.encode_batch(batches[0] if len(batches) == 1 else joined(batches))
    except ValueError as error:
        return model_failed("ENCODING", str(error))


def is_killed_from_outside(fate: dict[str, Any]) -> bool:
    """Whether a child was killed, and not by the model host: by the kernel, say, which wanted its memory."""
    return fate.get("exit") == -signal.SIGKILL and not fate.get("killed")


def describe_fate(fate: dict[str, Any]) -> str:
    """Why a child ended, for people."""
    code = fate.get("exit")
    if fate.get("killed") and code == -9:
        return "it was stopped"
    reasons = {
        -9: "killed from outside, probably for want of memory",
        -11: "it crashed (segmentation fault), perhaps for want of memory",
        -6: "it crashed (abort), perhaps for want of memory",
        -7: "it crashed (bus error)",
        -8: "it crashed (arithmetic error)",
        -24: "it used up its processor time",
        -31: "it made a forbidden system call",
    }
    if type(code) is int:
        return reasons.get(code, f"it ended by itself (status {code})" if code >= 0 else f"it ended by signal {-code}")
    return "it is gone"
