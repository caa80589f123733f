"""Imports everything that a fitted pipeline may need, before the fork: a locked child cannot open a file, so it can import nothing."""

from __future__ import annotations

import contextlib
import gc
import importlib
import pkgutil
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SKIPPED = frozenset(
    {"tests", "datasets", "conftest", "externals", "experimental", "_build_utils", "_testing", "_test_common", "estimator_checks"}
)
_SCIPY = "cluster fft integrate interpolate linalg ndimage optimize signal sparse sparse.csgraph sparse.linalg spatial special stats"
_ALSO = (
    *("joblib", "numpy.core", "numpy.core.multiarray", "numpy.core.numeric", "numpy.ma", "numpy.polynomial", "numpy.random", "numpy.fft"),
    *("_strptime", "bz2", "calendar", "cloudpickle", "ctypes", "dataclasses", "decimal", "fractions", "gzip", "html", "json", "locale"),
    *("lzma", "queue", "random", "socket", "statistics", "string", "subprocess", "textwrap", "threading", "unicodedata", "uuid", "zlib"),
    *("zoneinfo", "joblib.externals.cloudpickle", "sklearn.experimental.enable_iterative_imputer"),
)


def import_everything() -> None:
    """Takes one to two seconds. What is not installed is left out."""
    gc.disable()  # nothing of what imports make is garbage; looking for some takes a fifth of the time
    try:
        _import_everything()
    finally:
        gc.enable()


def _import_everything() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old names that old artifacts refer to say that they are old
        for name in _modules():
            with contextlib.suppress(Exception):  # optional back ends raise errors of all kinds where they are missing
                importlib.import_module(name)
        _use_what_is_lazy()


def import_skops() -> None:
    """Takes half a second, and so is done for the first artifact that needs it rather than at each start."""
    if "skops.io" in sys.modules:
        return
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        importlib.import_module("skops.io")
        gc.collect()
        gc.freeze()  # as for all that is imported before the forks


def _modules() -> Iterator[str]:
    yield from ("numpy", "pandas", "sklearn")
    yield from _ALSO
    yield from (f"scipy.{name}" for name in _SCIPY.split())
    yield from _below("encodings")
    yield from _below("sklearn")


def _below(package: str) -> Iterator[str]:
    importlib.import_module(package)
    for found in pkgutil.walk_packages(sys.modules[package].__path__, f"{package}.", onerror=lambda _: None):
        if not _SKIPPED.intersection(found.name.split(".")):
            yield found.name


def _use_what_is_lazy() -> None:
    """Fits and calls small pipelines: some libraries look for files (BLAS, CPU, locale) when first used."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0] * 8, "b": ["x", "y", "z", "x"] * 8})
    y = np.array([0, 1, 1, 0] * 8)
    columns = make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["b"]))
    for estimator in (
        LogisticRegression(),
        HistGradientBoostingClassifier(max_iter=2),
        RandomForestClassifier(2, n_jobs=1),
        KNeighborsClassifier(),
    ):
        make_pipeline(columns, estimator).fit(frame, y).predict_proba(frame)
    # Distances to every row look for the BLAS among the loaded libraries: a k-d tree, which few columns get, never does.
    KNeighborsClassifier(algorithm="brute").fit(np.eye(32), y).predict_proba(np.eye(32))
    make_pipeline(TfidfVectorizer(strip_accents="unicode"), LogisticRegression()).fit(["été bon", "chat dit"], [0, 1]).predict_proba(
        ["bon"]
    )
