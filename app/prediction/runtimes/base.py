"""What serves a version: arrays in, arrays out, under a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from app.errors import DeadlineExceeded, ModelUnavailable

if TYPE_CHECKING:
    from app.kernel.clock import Deadline
    from app.kernel.tensors import Batch, Scores


class NotNow(ModelUnavailable):
    """The version is being opened or closed at this moment, which says nothing of how well it answers."""


class NotAsked(DeadlineExceeded):
    """The time was over before the version was asked, and it was not the version that kept the request waiting."""


def time_left(deadline: Deadline) -> float:
    """Seconds; raises DeadlineExceeded where there are none."""
    left = deadline.remaining_s()
    if left <= 0:
        raise DeadlineExceeded("The time for this request is over.")
    return left


class Runtime(Protocol):
    """One version, ready to answer. Safe for any number of callers at once."""

    @property
    def kind(self) -> str:
        """How it is served: "sklearn" or "onnx"."""

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer of it: it is not closed for want of memory then."""

    async def infer(self, batch: Batch, deadline: Deadline) -> Scores:
        """The estimator's answers, one a row; raises ModelFailed (with problems), DeadlineExceeded or ModelUnavailable."""

    async def close(self) -> None:
        """Gives back what it holds; whoever still waits gets ModelUnavailable."""


@runtime_checkable
class Measured(Protocol):
    """A runtime whose memory can be told."""

    @property
    def memory_bytes(self) -> int | None:
        """What goes when this runtime goes, as it was when it had loaded; None where this machine does not tell."""
