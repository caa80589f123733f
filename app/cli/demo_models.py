"""Trains the demo's models on real data that ships inside scikit-learn: `python -m app.cli.demo_models FOLDER KEY...`.

A process of its own: only where something is missing does anybody pay for importing scikit-learn. For each KEY it writes
KEY.joblib and KEY.json: the sample rows, and metrics measured on rows that the model never saw.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, r2_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from collections.abc import Callable

_SAMPLE_ROWS = 40
_SEED = 7
_HOLD_OUT = 0.3


def tumour_logistic() -> tuple[Any, Any, dict[str, float]]:
    return _classifier(load_breast_cancer(as_frame=True), make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))


def tumour_boosting() -> tuple[Any, Any, dict[str, float]]:
    return _classifier(load_breast_cancer(as_frame=True), HistGradientBoostingClassifier(max_iter=60, random_state=_SEED))


def wine_logistic() -> tuple[Any, Any, dict[str, float]]:
    return _classifier(load_wine(as_frame=True), make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)))


def diabetes_boosting() -> tuple[Any, Any, dict[str, float]]:
    data = load_diabetes(as_frame=True, scaled=False)
    train, test, y_train, y_test = train_test_split(data.data, data.target, test_size=_HOLD_OUT, random_state=_SEED)
    model = HistGradientBoostingRegressor(max_iter=60, learning_rate=0.05, max_leaf_nodes=8, random_state=_SEED).fit(train, y_train)
    answers = model.predict(test)
    metrics = {"mae": float(mean_absolute_error(y_test, answers)), "r2": float(r2_score(y_test, answers))}
    return model, test, _rounded(metrics, train, test)


TRAINERS: dict[str, Callable[[], tuple[Any, Any, dict[str, float]]]] = {
    "tumour-logistic": tumour_logistic,
    "tumour-boosting": tumour_boosting,
    "wine-logistic": wine_logistic,
    "diabetes-boosting": diabetes_boosting,
}


def write(folder: Path, key: str) -> None:
    """Train `key` and write its two files into `folder`."""
    model, held_out, metrics = TRAINERS[key]()
    joblib.dump(model, folder / f"{key}.joblib", compress=3)
    sample = held_out.head(_SAMPLE_ROWS).to_dict(orient="records")
    (folder / f"{key}.json").write_text(json.dumps({"sample": sample, "metrics": metrics}), encoding="utf-8")


def _classifier(data: Any, estimator: Any) -> tuple[Any, Any, dict[str, float]]:
    names = data.target.map(dict(enumerate(str(name) for name in data.target_names))).to_numpy(dtype=object)
    train, test, y_train, y_test = train_test_split(data.data, names, test_size=_HOLD_OUT, random_state=_SEED, stratify=names)
    model = estimator.fit(train, y_train)
    labels, probabilities = model.predict(test), model.predict_proba(test)
    metrics = {"accuracy": float(accuracy_score(y_test, labels)), "log_loss": float(log_loss(y_test, probabilities))}
    if len(data.target_names) == 2:
        metrics["roc_auc"] = float(roc_auc_score(y_test == model.classes_[1], probabilities[:, 1]))
    else:
        metrics["f1_macro"] = float(f1_score(y_test, labels, average="macro"))
    return model, test, _rounded(metrics, train, test)


def _rounded(metrics: dict[str, float], train: Any, test: Any) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()} | {"n_train": len(train), "n_test": len(test)}


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        write(Path(sys.argv[1]), wanted)
