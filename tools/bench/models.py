"""The models that every server answers with, and the rows that every client asks about: made anew for each run, always the same ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COLUMNS, TRAINING_ROWS, SEED = 20, 4000, 7
BOOSTED, BOOSTED_NEXT, LINEAR, LINEAR_NEXT, FOREST = "boosted", "boosted-next", "linear", "linear-next", "forest"
NAMES = tuple(f"x{index}" for index in range(COLUMNS))
SAMPLE_ROWS = 40


def train(folder: Path) -> None:
    """One joblib file a model: histogram boosting of 100 rounds, scaler and logistic regression, the successors of both; in a
    folder of its own a forest of 100 trees, which one measurement asks.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = _data()
    later = np.random.default_rng(SEED + 1).permutation(TRAINING_ROWS)[: TRAINING_ROWS * 9 // 10]
    for name, estimator, rows in (
        (BOOSTED, HistGradientBoostingClassifier(max_iter=100, random_state=SEED), slice(None)),
        (BOOSTED_NEXT, HistGradientBoostingClassifier(max_iter=100, random_state=SEED), later),
        (LINEAR, make_pipeline(StandardScaler(), LogisticRegression()), slice(None)),
        (LINEAR_NEXT, make_pipeline(StandardScaler(), LogisticRegression()), later),
        (FOREST, RandomForestClassifier(100, random_state=SEED, n_jobs=1), slice(None)),
    ):
        own = folder / FOREST if name == FOREST else folder
        own.mkdir(exist_ok=True)
        joblib.dump(estimator.fit(x[rows], y[rows]), own / f"{name}.joblib")
    sample = [dict(zip(NAMES, row, strict=True)) for row in x[:SAMPLE_ROWS].tolist()]
    for own in (folder, folder / FOREST):
        (own / "sample.json").write_text(json.dumps(sample), encoding="utf-8")


def rows_of(count: int, bodies: int) -> NDArray[np.float64]:
    """`(bodies, count, COLUMNS) float64`: the rows of that many requests, six decimals each, none of which was trained on."""
    made: NDArray[np.float64] = np.random.default_rng(SEED + 2).normal(size=(bodies, count, COLUMNS)).round(6)
    return made


def _data() -> tuple[Any, Any]:
    x = np.random.default_rng(SEED).normal(size=(TRAINING_ROWS, COLUMNS))
    return x, x[:, 0] + x[:, 1] * x[:, 2] > 0
