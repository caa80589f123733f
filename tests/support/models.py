"""Small fitted pipelines with rows for them. Each builder returns (estimator, rows): the estimator as a notebook leaves it, the rows
as a client sends them (JSON objects in column order)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

if TYPE_CHECKING:
    from pathlib import Path

Rows = list[dict[str, Any]]
TEXTS = ["très bon café", "mauvais goût", "отлично, спасибо", "ужасно", "すばらしい 製品", "最悪 の 品質", "great stuff", "bad bad thing"]


def dump(estimator: Any, path: Path, compress: Any = 0) -> Path:
    """`path`, with the estimator in it as joblib writes it."""
    joblib.dump(estimator, path, compress=compress)
    return path


def numbers_frame(rows: int = 60, columns: int = 4) -> pd.DataFrame:
    """Columns f0, f1 and so on, standard normal; the same each time."""
    return pd.DataFrame(np.random.default_rng(7).normal(size=(rows, columns)), columns=[f"f{i}" for i in range(columns)])


def mixed_frame(rows: int = 80) -> pd.DataFrame:
    """age (float, gaps), visits (int), city (text), member (bool)."""
    rng = np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(18, 90, rows)),
            "visits": rng.integers(0, 9, rows),
            "city": np.array(["Oslo", "Riga", "Łódź", "東京"])[rng.integers(0, 4, rows)],
            "member": rng.random(rows) < 0.5,
        }
    )
    frame.loc[:3, "city"] = ["Oslo", "Riga", "Łódź", "東京"]
    return frame


def json_rows(frame: pd.DataFrame, count: int = 12) -> Rows:
    """The first rows as JSON objects: NaN as None, numpy scalars as plain values."""
    columns = {name: frame[name].tolist() for name in frame.columns}
    return [{name: _plain(values[i]) for name, values in columns.items()} for i in range(min(count, len(frame)))]


def logistic_on_frame() -> tuple[Any, Rows]:
    frame = numbers_frame()
    y = np.where(frame["f0"] + frame["f1"] > 0, "malignant", "benign")
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, y), json_rows(frame)


def logistic_on_array() -> tuple[Any, Rows]:
    frame = numbers_frame()
    y = (frame["f0"] > 0).astype(int)
    rows = [{f"x{i}": value for i, value in enumerate(row.values())} for row in json_rows(frame)]
    return LogisticRegression().fit(frame.to_numpy(), y), rows


def text_pipeline() -> tuple[Any, Rows]:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [1, 0] * 4)
    return model, [{"text": text} for text in TEXTS]


def regressor() -> tuple[Any, Rows]:
    frame = numbers_frame()
    return make_pipeline(StandardScaler(), Ridge()).fit(frame, frame["f0"] * 3 + frame["f2"]), json_rows(frame)


def mixed_frame_pipeline() -> tuple[Any, Rows]:
    """Numbers with gaps, text categories that refuse unknown ones, a boolean."""
    frame = mixed_frame()
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "visits"]), (OneHotEncoder(), ["city"]), remainder="passthrough"
    )
    y = np.where(frame["visits"] > 4, "often", "seldom")
    return make_pipeline(columns, LogisticRegression()).fit(frame, y), json_rows(frame)


def multi_class() -> tuple[Any, Rows]:
    frame = numbers_frame()
    y = np.digitize(frame["f0"], [-0.5, 0.5])
    return HistGradientBoostingClassifier(max_iter=5).fit(frame, y), json_rows(frame)


def without_probabilities() -> tuple[Any, Rows]:
    frame = numbers_frame()
    return LinearSVC().fit(frame, frame["f0"] > 0), json_rows(frame)


class Reducing:
    """An object whose unpickling calls `function(*arguments)`: how a hostile artifact is made."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def running(code: str) -> Reducing:
    """An artifact that runs Python code when it is loaded without an allow-list."""
    return Reducing(exec, code)


def quietly_fitted(estimator: Any, *data: Any) -> Any:
    """estimator.fit(*data), without the warnings of too few iterations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(*data)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and np.isnan(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
