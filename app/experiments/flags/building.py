"""A tenant's flags from what runs: compiled, checked, tested, ready to decide. Pure; takes milliseconds, so never on the answering loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.experiments.flags.checking import problems_of
from app.experiments.flags.compiling import buckets_of, compile_document
from app.experiments.flags.document import FlagsRefused
from app.experiments.flags.engines import Engines
from app.experiments.flags.selector import TenantFlags
from app.experiments.flags.selftest import self_test

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.experiments.types import RunningExperiment
    from app.experiments.unleash.types import UnleashDocument


class FlagBuilder:
    """Builds flags whose engines share one bounded store."""

    def __init__(self, engines: Engines | None = None) -> None:
        self.engines = Engines() if engines is None else engines

    def __call__(
        self,
        tenant_name: str,
        running: Sequence[RunningExperiment],
        holdout_percent: float,
        revision: int,
        unleash: UnleashDocument | None = None,
        shared_flags: bool = False,  # noqa: ARG002  the share has been made by it already
        /,
    ) -> TenantFlags:
        """The tenant's flags. `revision` orders the tenant's own documents; `unleash` is the tenant's share of a flag server's.

        A model that an experiment of the service runs on is decided by that experiment, and its flag of the flag server is not asked,
        which is a problem told. Raises FlagsRefused that names flag and field: then those from before go on deciding. They are tested
        on the first units; `TenantFlags.prove` tests them on all.
        """
        own = compile_document(running, holdout_percent, revision)
        foreign = None
        problems: tuple[str, ...] = ()
        if unleash is not None:
            foreign = unleash.document
            if found := problems_of(foreign.flags):
                raise FlagsRefused(found)
            busy = {experiment.model: experiment.key for experiment in running}
            problems = (
                *unleash.problems,
                *(
                    f"Flag 'model.{model}': the experiment {busy[model]!r} runs on this model and decides; the flag is not asked."
                    for model in unleash.flags
                    if model in busy
                ),
            )
        kept = [document if document is not None and document.flags else None for document in (own, foreign)]
        for document in kept:
            if document is not None:
                self_test(document, self.engines.of(document), tenant_name, first=True)
        return TenantFlags(tenant_name, revision, running, buckets_of(holdout_percent), (kept[0], kept[1]), unleash, self.engines, problems)


def build_flags(
    tenant_name: str,
    running: Sequence[RunningExperiment],
    holdout_percent: float,
    revision: int,
    unleash: UnleashDocument | None = None,
    shared_flags: bool = False,
    /,
) -> TenantFlags:
    """As FlagBuilder, with engines of these flags' own."""
    return FlagBuilder()(tenant_name, running, holdout_percent, revision, unleash, shared_flags)
