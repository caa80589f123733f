"""A version is compiled or left native by a verdict, never because this machine happened to lack something."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from app.errors import AppError, ModelUnavailable, Unavailable
from app.kernel.inspection import InspectionReport, Undecided
from app.kernel.proof import Compiled, Proof
from app.registry import validation
from app.registry.compiled_models import CompiledModels
from app.registry.types import PendingValidation
from app.registry.validation import Validator
from tests.integration.registry.conftest import READY, Quiet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.integration.registry.conftest import Registry

pytestmark = pytest.mark.integration
FULL = ModelUnavailable("This machine holds as many models as it can.")
STARVED = Undecided("The inspection had 0.1 seconds of a processor within 5.")
PROVED = Compiled(Proof(None, rows=1000, tolerance=1e-9), b"a graph")


@dataclass
class Machine:
    """A model host as a test wants it: each question is answered by the next of `compiles`, the last one again and again."""

    compiles: list[Compiled | AppError]
    inspects: list[InspectionReport | AppError] = field(default_factory=lambda: [READY])
    compiled: int = 0
    inspected: int = 0

    async def refusal(self, _digest: str) -> str | None:
        return None

    async def inspect(self, *_: Any) -> InspectionReport:
        self.inspected += 1
        return cast("InspectionReport", _next(self.inspects))

    async def compile(self, *_: Any) -> Compiled:
        self.compiled += 1
        return cast("Compiled", _next(self.compiles))


def _next(answers: list[Any]) -> Any:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, AppError):
        raise answer
    return answer


class Validating:
    def __init__(self, registry: Registry, machine: Machine) -> None:
        self.registry = registry
        graphs = CompiledModels(registry.database, registry.limits)
        parts = (registry.database, registry.artifacts, machine, machine, graphs, machine, registry.clock, Quiet())
        self.validator = Validator(*parts, timeout_s=5.0)
        self.task = asyncio.create_task(self.validator.run())

    def reason(self, number: int = 1) -> str | None:
        """Why it failed."""
        return self.registry.sql("select status_reason from model_versions where number = $1", number)[0]["status_reason"]

    async def version(self, data: bytes = b"a model") -> PendingValidation:
        await self.registry.upload(data)
        made = await self.registry.register(data)
        pending = PendingValidation(self.registry.tenant, made.model_id, made.number)
        self.validator.consider([pending])
        return pending

    async def until_done(self, number: int = 1) -> tuple[str, str | None, str | None]:
        """Status, runtime, and why it is not compiled."""
        async with asyncio.timeout(60):
            while (row := self.row(number))["status"] == "VALIDATING":  # noqa: ASYNC110  what is waited for tells nobody
                await asyncio.sleep(0.002)
        return row["status"], row["runtime"], json.loads(row["proof"])["reason"] if row["proof"] else None

    def row(self, number: int) -> Any:
        return self.registry.sql("select status, runtime, proof, claimed_until from model_versions where number = $1", number)[0]


@pytest.fixture
async def start(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Validating]]:
    monkeypatch.setattr(validation, "_FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(validation, "_LONGEST_RETRY_S", 0.004)
    made: list[Validating] = []

    def make(machine: Machine) -> Validating:
        made.append(Validating(registry, machine))
        return made[-1]

    yield make
    for each in made:
        each.task.cancel()
    await asyncio.gather(*(each.task for each in made), return_exceptions=True)


async def test_a_machine_that_is_full_or_away_while_it_compiles_is_asked_again(start: Callable[..., Validating]) -> None:
    machine = Machine([FULL, Unavailable("away"), ModelUnavailable("the converter died: killed from outside"), PROVED])
    validating = start(machine)
    await validating.version()
    assert await validating.until_done() == ("READY", "ONNX", None)
    assert machine.compiled == 4


async def test_a_verdict_is_final(start: Callable[..., Validating]) -> None:
    machine = Machine([Compiled(Proof("float32: another class than scikit-learn's on 1 of 1000 rows")), PROVED])
    validating = start(machine)
    await validating.version()
    assert await validating.until_done() == ("READY", "SKLEARN", "float32: another class than scikit-learn's on 1 of 1000 rows")
    assert machine.compiled == 1


async def test_what_is_missing_for_good_leaves_the_version_native_and_says_so(start: Callable[..., Validating]) -> None:
    machine = Machine([FULL])
    validating = start(machine)
    await validating.version()
    assert await validating.until_done() == ("READY", "SKLEARN", "This machine holds as many models as it can; tried 10 times")
    assert machine.compiled == 10
    assert validating.row(1)["claimed_until"] is None


async def test_a_version_that_cannot_be_inspected_now_holds_up_no_other_and_is_never_called_broken(
    start: Callable[..., Validating], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "_FIRST_RETRY_S", 3600.0)
    monkeypatch.setattr(validation, "_LONGEST_RETRY_S", 3600.0)
    machine = Machine([PROVED], [Unavailable("The model host of this machine does not answer."), READY])
    validating = start(machine)
    first = await validating.version()
    await validating.version(b"another model")
    assert (await validating.until_done(2))[0] == "READY"
    validating.validator.consider([first])  # as each change of its tenant does: it waits its time all the same
    await asyncio.sleep(0)
    assert (validating.row(1)["status"], machine.inspected) == ("VALIDATING", 2)


async def test_an_inspection_that_found_nothing_out_is_taken_up_again_and_its_claim_given_back_meanwhile(
    start: Callable[..., Validating], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = []

    async def unclaim(self: Validator, pending: PendingValidation) -> None:
        claims.append(validating.row(1)["claimed_until"] is None)
        await release(self, pending)
        claims.append(validating.row(1)["claimed_until"] is None)

    release = Validator._unclaim
    monkeypatch.setattr(Validator, "_unclaim", unclaim)
    machine = Machine([PROVED], [*[STARVED] * 9, READY])
    validating = start(machine)
    await validating.version()
    assert await validating.until_done() == ("READY", "ONNX", None)
    assert machine.inspected == 10
    assert claims == [False, True] * 9


async def test_an_inspection_that_never_finds_anything_out_fails_the_version_at_last_and_says_how_often_it_was_tried(
    start: Callable[..., Validating],
) -> None:
    machine = Machine([PROVED], [STARVED])
    validating = start(machine)
    await validating.version()
    assert (await validating.until_done())[0] == "FAILED"
    assert validating.reason() == "The inspection had 0.1 seconds of a processor within 5; tried 10 times."
    assert (machine.inspected, machine.compiled) == (10, 0)
    assert validating.row(1)["claimed_until"] is None


async def test_a_host_that_is_away_is_no_try_and_what_a_report_says_is_final(start: Callable[..., Validating]) -> None:
    broken = InspectionReport.failed("The artifact's process died during the inspection: it crashed (bus error).")
    machine = Machine([PROVED], [*[STARVED] * 9, *[Unavailable("away")] * 5, broken, READY])
    validating = start(machine)
    await validating.version()
    assert (await validating.until_done())[0] == "FAILED"
    assert validating.reason() == broken.failure
    assert machine.inspected == 15
