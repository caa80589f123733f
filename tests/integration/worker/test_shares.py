"""No tenant takes all the processes that a machine has for models."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor

from app.errors import ModelUnavailable
from app.kernel.signature import Task
from tests.integration.worker.conftest import Lab
from tests.support.model_host import model_host

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def constant(value: float) -> DummyRegressor:
    return DummyRegressor(strategy="constant", constant=value).fit(np.zeros((2, 1)), [0.0, 1.0])


async def test_a_tenant_with_many_models_leaves_room_for_others(tmp_path: Path) -> None:
    with model_host(uids=4) as running:
        lab, greedy = Lab(running, running.connect(), tmp_path), uuid4()
        report = await lab.inspect(constant(0.0), Task.REGRESSION, rows=[[1.0]] * 5)
        opened = [await lab.open(constant(value), report, Task.REGRESSION, greedy) for value in (1.0, 2.0)]
        with pytest.raises(ModelUnavailable, match="Your tenant has as many models loaded"):
            await lab.open(constant(3.0), report, Task.REGRESSION, greedy)
        again = await lab.open(constant(2.0), report, Task.REGRESSION, greedy)  # that one is there
        other = await lab.open(constant(3.0), report, Task.REGRESSION)
        for runtime in (*opened, again, other):
            await runtime.close()
