"""What a serving process imports at its start: nothing heavy that no prediction needs."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

# Imported by the functions that need them, in processes where they are asked for: statistics, commands, keys fetched over HTTP, migrations,
# the store of shared limits, a flag server, estimators and their graphs.
NOT_AT_THE_START = (
    "scipy", "sklearn", "pandas", "joblib", "onnx", "skl2onnx", "numpy.f2py", "numpy.testing", "httpx", "rich", "alembic", "redis",
    "UnleashClient", "pytest",
)  # fmt: skip
AS_THE_PARENT_STARTS_IT = """
import json, sys
from app.supervisor import warm
try:
    warm.main(["app.main"])  # the end of file says that the parent has given up: it ends when all is imported
except SystemExit:
    print(json.dumps(sorted(sys.modules)))
    import rich  # it was there all the time
"""


def test_a_serving_process_begins_without_what_no_prediction_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_THE_PARENT_STARTS_IT], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60
    )
    imported = set(json.loads(done.stdout))
    assert "app.main" in imported
    assert [name for name in NOT_AT_THE_START if name in imported] == []
