"""What locked children take of the machine's memory, beside the size of what they loaded: the reckoning of `app/prediction/budget.py`.

Each estimator is written by joblib as it is, loaded by a child of a model host, and asked once; told are the bytes that are the
child's alone when it has loaded, and after that answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import joblib
import numpy as np
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from app.kernel.clock import Deadline
from app.kernel.inspection import InspectionRequest
from app.kernel.signature import Column, ColumnType, Task
from app.prediction.budget import native_bytes_of
from app.prediction.features import RowChecker
from app.prediction.runtimes.host import ModelHost

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024


def estimators() -> Iterator[tuple[str, Any, Any, int]]:
    """(name, fitted estimator, a row for it, joblib's compression)."""
    x, y = make_classification(5_000, 20, random_state=7)
    row = x[0].tolist()
    yield "constant", DummyClassifier(strategy="prior").fit(x, y), row, 0
    yield "scaler + logistic regression", make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), row, 0
    yield "multi-layer perceptron, 512 x 512", MLPClassifier((512, 512), max_iter=1, random_state=7).fit(x[:500], y[:500]), row, 0
    yield "histogram boosting, 200 rounds", HistGradientBoostingClassifier(max_iter=200, random_state=7).fit(x, y), row, 0
    yield "gradient boosting, 200 rounds", GradientBoostingClassifier(n_estimators=200, random_state=7).fit(x[:2000], y[:2000]), row, 0
    forest = RandomForestClassifier(100, random_state=7).fit(x, y)
    yield "random forest, 100 trees", forest, row, 0
    yield "random forest, 100 trees, compressed", forest, row, 3
    many, classes = make_classification(60_000, 20, flip_y=0.3, random_state=8)
    yield "random forest, 100 trees, 60,000 rows", RandomForestClassifier(100, random_state=7, n_jobs=2).fit(many, classes), row, 0
    yield "5 neighbours of 50,000 rows", KNeighborsClassifier().fit(many[:50_000], classes[:50_000]), row, 0
    yield "5 neighbours by brute force", KNeighborsClassifier(algorithm="brute").fit(many[:50_000], classes[:50_000]), row, 0
    yield "support vectors", SVC(probability=False).fit(many[:8_000], classes[:8_000]), row, 0
    rng = np.random.default_rng(9)
    texts = [" ".join(f"word{n}" for n in rng.zipf(1.3, 60) % 60_000) for _ in range(6_000)]
    labels = [str(n % 2) for n in range(len(texts))]
    yield "TF-IDF + logistic regression", make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels), texts[0], 0


@contextlib.contextmanager
def model_host(folder: Path) -> Iterator[Path]:
    """The socket of a model host."""
    socket = folder / "host.sock"
    command = [sys.executable, "-m", "app.prediction.worker", "--socket", str(socket), "--memory-bytes", str(4096 * MIB)]
    process = subprocess.Popen([*command, "--trust", "restricted"])
    try:
        until = time.monotonic() + 60
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the model host did not start")
            time.sleep(0.02)
        yield socket
    finally:
        process.terminate()
        process.wait(10)


async def measured(host: ModelHost, artifact: Path, row: Any) -> tuple[int, int] | None:
    """(bytes when loaded, bytes after an answer)."""
    columns = (Column("text", ColumnType.STRING),) if isinstance(row, str) else None
    report = await host.inspect(uuid4(), artifact, InspectionRequest(Task.CLASSIFICATION, columns, ()), 120.0)
    if report.signature is None:
        raise SystemExit(report.failure)
    tenant, digest = uuid4(), hashlib.sha256(artifact.read_bytes()).hexdigest()  # noqa: ASYNC240  nothing else runs here
    runtime = await host.open(tenant, digest, artifact, report.signature, Task.CLASSIFICATION, report.classes or ())
    loaded = runtime.memory_bytes
    await runtime.infer(RowChecker(report.signature).rows([[row] if isinstance(row, str) else row]), Deadline.after(30))
    asked = await runtime.measure()
    await runtime.close()
    return None if loaded is None or asked is None else (loaded, asked)


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="turnout-memory-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # noqa: ASYNC240  as above
        with model_host(folder) as socket:
            host = ModelHost(socket)
            for title, estimator, row, compress in estimators():
                artifact = folder / "model.joblib"
                joblib.dump(estimator, artifact, compress=compress)
                size = artifact.stat().st_size
                found = await measured(host, artifact, row)
                if found is None:
                    raise SystemExit("this machine does not tell what its children take")
                figures = (size / MIB, found[0] / MIB, found[1] / MIB, native_bytes_of(size) / MIB)
                print("| {} | {:.1f} | {:.1f} | {:.1f} | {:.0f} |".format(title, *figures), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
