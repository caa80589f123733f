"""The first of two locked children: it has the tenant's estimator, makes graphs of it and the rows to prove them on, and ends."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.errors import InvalidFeatures
from app.kernel.signature import ColumnType, Signature, Task
from app.kernel.tensors import Batch, Scores
from app.prediction.features import batch_from_rows
from app.prediction.worker.calling import Caller, trained_names
from app.prediction.worker.columns import read_columns
from app.prediction.worker.compiling import seams
from app.prediction.worker.compiling.graphs import Outputs, forms, require_no_texts, to_graph
from app.prediction.worker.compiling.rows import RowMaker
from app.prediction.worker.compiling.thresholds import known_texts, thresholds
from app.prediction.worker.compiling.timing import joined, median_us
from app.prediction.worker.compiling.trees import NotConvertible
from app.prediction.worker.inspect import hints_in_order
from app.prediction.worker.probing import base_batch, rows_of
from app.prediction.worker.settle import nested_estimators, settle

MOST_COLUMNS = 2_000
LARGEST_GRAPH = 32 * 1024 * 1024
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph, and what it computes with: "float32" or "float64"."""

    precision: str
    graph: bytes


@dataclass(frozen=True, slots=True)
class Candidates:
    """`reasons`: why there are not more graphs, or none. `answered`: (rows,) bool: those that the estimator did not refuse.

    `scores`: of the answered rows alone. `ordinary`: how many rows at the start are such as clients send.
    """

    reasons: tuple[str, ...]
    batch: Batch | None = None
    answered: Any = None
    scores: Scores | None = None
    ordinary: int = 0
    native_us: float = 0.0
    graphs: tuple[Candidate, ...] = ()


def prepare() -> None:
    """What must be done before the lock, when files can still be read: the first conversion imports more."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    seams.mend()
    import pandas as pd

    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": ["x", "y", "x", "y"]})
    columns = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), ["a"]), (OneHotEncoder(), ["b"]))
    signature = Signature.from_json(
        {"columns": [{"name": "a", "type": "NUMBER"}, {"name": "b", "type": "STRING"}], "kind": "FRAME", "noneColumns": []}
    )
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1, 1, 0])
    to_graph(estimator, signature, Task.CLASSIFICATION, forms(signature)[0], Outputs(probabilities=True, labels=True))


def candidates(estimator: Any, signature: Signature, task: Task, classes: tuple[str, ...], sample: tuple[Any, ...]) -> Candidates:
    """Rows, the estimator's answers and graphs; raises MemoryError, and whatever else a stranger's estimator raises."""
    if len(signature.columns) > MOST_COLUMNS:
        return Candidates((f"more than {MOST_COLUMNS} columns",))
    settle(estimator)
    caller = Caller(estimator, signature, task, classes)
    try:
        require_no_texts(estimator, signature)
        batch, ordinary = _rows(estimator, caller, signature, sample)
    except NotConvertible as error:
        return Candidates((str(error),))
    answered = np.zeros(batch.rows, dtype=bool)
    parts: list[Scores] = []
    if not _answer(caller, batch, 0, batch.rows, answered, parts, time.monotonic() + _ANSWER_S):
        return Candidates(("the estimator takes too long to be compared",))
    if not answered[0]:
        return Candidates(("the estimator refuses the rows to compare on",))
    scores = joined(parts)
    graphs, reasons = _graphs(estimator, signature, task, _wanted(task, scores))
    probe = next(rows_of(batch))
    return Candidates(reasons, batch, answered, scores, ordinary, median_us(lambda: caller(probe)), graphs)


def _wanted(task: Task, scores: Scores) -> Outputs:
    if task is Task.REGRESSION or scores.probabilities is None:
        return Outputs(probabilities=False, labels=True)
    return Outputs(probabilities=True, labels=bool((scores.probabilities.argmax(axis=1) != scores.labels).any()))


def _rows(estimator: Any, caller: Caller, signature: Signature, sample: tuple[Any, ...]) -> tuple[Batch, int]:
    """(the rows, how many of them are ordinary)."""
    given = None
    if sample:
        try:
            given = batch_from_rows(signature, sample)
        except InvalidFeatures:
            raise NotConvertible("the sample does not fit the signature") from None
    names = [column.name for column in signature.columns]
    trained = [str(name) for name in trained_names(estimator) or names]
    order = [names.index(name) for name in trained] if set(trained) == set(names) else list(range(len(names)))
    known = known_texts(estimator, len(names))
    categories = [known.get(order.index(i), ()) for i, column in enumerate(signature.columns) if column.type is ColumnType.STRING]
    if given is None:
        given = base_batch(caller, signature, hints_in_order(read_columns(estimator), signature), None)
    at = {order[position]: values for position, values in thresholds(estimator, len(names)).items()}
    maker = RowMaker(signature, given, at, categories)
    batch = maker.batch()
    return batch, maker.ordinary


def _answer(caller: Caller, batch: Batch, start: int, stop: int, answered: Any, parts: list[Scores], until: float) -> bool:
    """Has the rows answered, halving where some are refused; False where time is up."""
    if time.monotonic() > until:
        return False
    piece = Batch(stop - start, batch.numbers[start:stop], tuple(column[start:stop] for column in batch.texts))
    try:
        parts.append(caller(piece))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  estimators raise all kinds
        if stop - start == 1:
            return True
        middle = (start + stop) // 2
        return _answer(caller, batch, start, middle, answered, parts, until) and _answer(
            caller, batch, middle, stop, answered, parts, until
        )
    answered[start:stop] = True
    return True


def _graphs(estimator: Any, signature: Signature, task: Task, wanted: Outputs) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    made: list[Candidate] = []
    reasons: list[str] = []
    for form in forms(signature):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph = to_graph(estimator, signature, task, form, wanted)
        except MemoryError:
            raise
        except NotConvertible as error:
            return (), (str(error),)
        except Exception as error:  # noqa: BLE001  the converter raises all kinds
            reasons.append(_plainly(error, estimator))
            continue
        if len(graph) > LARGEST_GRAPH:
            reasons.append(f"its graph has {len(graph) >> 20} MiB; at most {LARGEST_GRAPH >> 20} are taken")
        elif all(graph != other.graph for other in made):
            made.append(Candidate("float64" if form.double else "float32", graph))
    return tuple(made), tuple(dict.fromkeys(reasons))


def _plainly(error: Exception, estimator: Any) -> str:
    """The converter's error in few words."""
    text = " ".join(str(error).split())
    if "Unable to find a shape calculator" in text or "Unable to find a converter" in text:
        names = {type(held).__name__ for held in nested_estimators(estimator)}
        found = next((name for name in sorted(names) if f"'{name}'" in text or f".{name}'" in text), type(estimator).__name__)
        return f"there is no converter for {found}"
    return f"the converter failed ({type(error).__name__}: {text[:200]})"
