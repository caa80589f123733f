"""Calls through the host: batching, deadlines, deaths, sharing, and what is left when the host is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pytest

from app.errors import DeadlineExceeded, ModelFailed, ModelUnavailable, Unavailable
from app.kernel.clock import Deadline
from app.kernel.inspection import InspectionRequest
from app.kernel.signature import Column, ColumnType, InputKind, Signature, Task
from app.kernel.tensors import Batch
from app.prediction.features import batch_from_rows
from app.prediction.runtimes.host import ModelHost
from tests.support.model_host import ROOT, model_host
from tests.support.models import logistic_on_frame, mixed_frame_pipeline, multi_class, regressor, text_pipeline, without_probabilities

if TYPE_CHECKING:
    from tests.integration.worker.conftest import Lab

pytestmark = pytest.mark.integration
BUILDERS = [logistic_on_frame, mixed_frame_pipeline, multi_class, without_probabilities, text_pipeline]


def _pid_lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def _until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  another process decides
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("build", BUILDERS)
async def test_many_at_once_answer_as_one_by_one(lab: Lab, build: Any) -> None:
    model, rows = build()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    runtime = await lab.open(artifact, report)
    batches = [batch_from_rows(report.signature, rows[i : i + 1 + i % 3]) for i in range(len(rows) - 3)] * 8
    alone = [await runtime.infer(batch, Deadline.after(60)) for batch in batches]
    together = await asyncio.gather(*(runtime.infer(batch, Deadline.after(60)) for batch in batches))
    await runtime.close()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        if one.probabilities is not None:
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-12)


async def test_a_model_ranks_behind_what_answers_everybody(lab: Lab) -> None:
    model, rows = multi_class()
    artifact = lab.save(model)
    runtime = await lab.open(artifact, await lab.inspect(artifact, rows=rows))
    assert os.getpriority(os.PRIO_PROCESS, runtime.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    await runtime.close()


async def test_one_bad_row_fails_only_its_own_request(lab: Lab) -> None:
    """NaN is refused by logistic regression; the check before would have refused it, so it is sent past that."""
    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    runtime = await lab.open(artifact, report)
    good = batch_from_rows(report.signature, rows[:2])
    bad = Batch(1, np.full((1, 4), np.nan))
    answers = await asyncio.gather(
        *(runtime.infer(batch, Deadline.after(60)) for batch in (good, good, bad, good, good)), return_exceptions=True
    )
    await runtime.close()
    assert isinstance(answers[2], ModelFailed)
    assert "contains NaN" in answers[2].details["problems"][0]["got"]
    assert [type(answer).__name__ for answer in answers] == ["Scores", "Scores", "ModelFailed", "Scores", "Scores"]


async def test_ten_thousand_rows_in_one_batch(lab: Lab) -> None:
    model, rows = mixed_frame_pipeline()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    runtime = await lab.open(artifact, report)
    many = (rows * 1000)[:10_000]
    scores = await runtime.infer(batch_from_rows(report.signature, many), Deadline.after(30))
    first = await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(30))
    await runtime.close()
    assert scores.labels is not None
    assert first.labels is not None
    np.testing.assert_array_equal(scores.labels, np.resize(first.labels, 10_000))


async def test_a_worker_killed_in_mid_call_is_replaced_and_its_call_answered_by_the_next(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    runtime = await lab.open(artifact, report)
    first = runtime.pid
    os.kill(first, signal.SIGSTOP)  # so that the call is surely under way
    call = asyncio.ensure_future(runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(60)))
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    answer = await call
    assert [report.classes[i] for i in answer.labels] == model.predict(_frame(rows)).tolist()  # type: ignore[index,union-attr]
    assert runtime.pid not in (0, first)
    await runtime.close()


async def test_a_stuck_worker_costs_its_caller_the_deadline_and_is_replaced(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    runtime = await lab.open(artifact, report)
    first = runtime.pid
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded):
        await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(1.5))
    again = await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(60))
    assert again.labels is not None
    assert runtime.pid not in (0, first)
    assert not _pid_lives(first)
    await runtime.close()


async def test_a_deadline_that_has_passed_is_not_sent(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    runtime = await lab.open(artifact, report)
    with pytest.raises(DeadlineExceeded):
        await runtime.infer(batch_from_rows(report.signature, rows), Deadline(time.monotonic() - 1))
    await runtime.close()
    with pytest.raises(ModelUnavailable):
        await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(1))


async def test_two_serving_processes_share_a_child_and_two_tenants_do_not(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    tenant, other = lab.running.connect(), uuid4()
    mine = await lab.open(artifact, report, tenant=other)
    lab.host = tenant
    shared = await lab.open(artifact, report, tenant=other)
    strange = await lab.open(artifact, report, tenant=uuid4())
    assert shared.pid == mine.pid
    assert strange.pid != mine.pid
    await mine.close()
    assert (await shared.infer(batch_from_rows(report.signature, rows), Deadline.after(60))).labels is not None
    await shared.close()
    await strange.close()


async def test_opening_at_once_loads_once(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    tenant = uuid4()
    runtimes = await asyncio.gather(*(lab.open(artifact, report, tenant=tenant) for _ in range(6)))
    assert len({runtime.pid for runtime in runtimes}) == 1
    for runtime in runtimes:
        assert (await runtime.infer(batch_from_rows(report.signature, rows), Deadline.after(60))).labels is not None
        await runtime.close()


async def test_two_versions_of_one_artifact_keep_their_own_terms(lab: Lab) -> None:
    """The same bytes registered with other column names: one child, two signatures."""
    model, _ = regressor()
    plain = model[-1]
    artifact = lab.save(plain)
    report = await lab.inspect(artifact, Task.REGRESSION)
    renamed = await lab.inspect(artifact, Task.REGRESSION, columns=tuple(Column(n, ColumnType.NUMBER) for n in "abcd"))
    tenant = uuid4()
    first = await lab.open(artifact, report, Task.REGRESSION, tenant)
    second = await lab.open(artifact, renamed, Task.REGRESSION, tenant)
    row = [0.1, 0.2, 0.3, 0.4]
    named = dict(zip("abcd", row, strict=True))
    one = await first.infer(batch_from_rows(report.signature, [row]), Deadline.after(60))
    two = await second.infer(batch_from_rows(renamed.signature, [named]), Deadline.after(60))
    assert first.pid == second.pid
    np.testing.assert_array_equal(one.values, two.values)
    await first.close()
    await second.close()


async def test_bytes_that_are_not_the_digests_are_not_loaded(lab: Lab) -> None:
    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    with pytest.raises(ModelUnavailable, match="do not match"):
        await lab.host.open(uuid4(), "0" * 64, artifact, report.signature, Task.CLASSIFICATION, report.classes or ())  # type: ignore[arg-type]


async def test_other_classes_than_the_versions_are_refused(lab: Lab) -> None:
    import hashlib

    model, rows = logistic_on_frame()
    artifact = lab.save(model)
    report = await lab.inspect(artifact, rows=rows)
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    with pytest.raises(ModelFailed, match="classes"):
        await lab.host.open(uuid4(), digest, artifact, report.signature, Task.CLASSIFICATION, ("no", "yes"))  # type: ignore[arg-type]


async def test_without_a_host_everything_says_so(tmp_path: Path) -> None:
    away = ModelHost(tmp_path / "nothing.sock")
    signature = Signature((Column("x0", ColumnType.NUMBER),), InputKind.ARRAY)
    (tmp_path / "a").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(Unavailable):
        await away.open(uuid4(), empty, tmp_path / "a", signature, Task.REGRESSION, ())
    with pytest.raises(Unavailable):
        await away.confinement()
    with pytest.raises(Unavailable):
        await away.inspect(uuid4(), tmp_path / "a", InspectionRequest(Task.REGRESSION, None, ()), 1.0)


async def test_nothing_is_left_after_the_host_is_killed_and_a_new_one_is_found(tmp_path: Path) -> None:
    from tests.integration.worker.conftest import Lab

    model, rows = logistic_on_frame()
    with model_host() as running:
        lab = Lab(running, running.connect(), tmp_path)
        artifact = lab.save(model)
        report = await lab.inspect(artifact, rows=rows)
        runtime = await lab.open(artifact, report)
        batch = batch_from_rows(report.signature, rows)
        expected = await runtime.infer(batch, Deadline.after(60))
        first = runtime.pid
        running.process.kill()
        running.process.wait()
        await _until(lambda: not _pid_lives(first))
        with pytest.raises((ModelFailed, ModelUnavailable)):
            await runtime.infer(batch, Deadline.after(60))
        with _start_again(running.socket) as second:
            answer = None
            async with asyncio.timeout(60):
                while answer is None:
                    try:
                        answer = await runtime.infer(batch, Deadline.after(60))
                    except (ModelFailed, ModelUnavailable):
                        await asyncio.sleep(0.05)
            np.testing.assert_array_equal(answer.labels, expected.labels)
            child = runtime.pid
            second.terminate()
            second.wait()
            await _until(lambda: not _pid_lives(child))
        await runtime.close()


async def test_the_host_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-m', 'app.prediction.worker', '--socket', {str(tmp_path / 's')!r}, '--memory-bytes', '1', '--trust', 'full'])\n"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    with _python(starter) as process:
        assert process.stdout is not None
        host = int(process.stdout.readline())
        await _until((tmp_path / "s").exists)
        process.kill()
        process.wait()
        await _until(lambda: not _pid_lives(host))


def test_the_host_knows_nothing_of_settings_keys_or_databases() -> None:
    code = (
        "import sys\nfrom app.prediction.worker import warm, zygote\nwarm.import_everything()\n"
        "print([m for m in sys.modules if m.startswith('app.') or m.split('.')[0] in ('sqlalchemy', 'asyncpg', 'jose', 'structlog')])"
    )
    with _python(code) as process:
        loaded = set(eval(process.communicate()[0]))
    assert {m for m in loaded if not m.startswith(("app.kernel", "app.prediction.worker"))} == {
        "app.errors",
        "app.prediction",
        "app.prediction.features",
        "app.prediction.one_row",
    }


def _start_again(socket: Path) -> subprocess.Popen[bytes]:
    options = ["--socket", socket, "--memory-bytes", "1000000000", "--trust", "restricted"]
    return subprocess.Popen([sys.executable, "-m", "app.prediction.worker", *options], cwd=ROOT, env={})


def _python(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)


def _frame(rows: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)
