"""What an artifact is, and whether it can be served: loaded, read, called with its sample. Runs in a locked child only."""

from __future__ import annotations

import platform
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from app.errors import InvalidFeatures
from app.kernel.inspection import InspectionReport, InspectionRequest
from app.kernel.signature import InputKind, Signature, Task
from app.prediction.features import batch_from_rows
from app.prediction.worker.calling import Caller, CallFailed, class_labels
from app.prediction.worker.columns import read_columns
from app.prediction.worker.probing import base_batch, find_optional, rows_of
from app.prediction.worker.settle import describe, settle
from app.prediction.worker.signatures import Misfit, draft_signature
from app.prediction.worker.unpickle import load
from app.prediction.worker.verdicts import Loaded, LoadRefused, Trust, other_version

if TYPE_CHECKING:
    import io

    from app.kernel.tensors import Batch
    from app.prediction.worker.columns import Hint, Reading

_LONGEST_TEXT = 2_000
_PATH = re.compile(r"(?<![\w.])(?:/[\w.+-]+){2,}")


def inspect_artifact(stream: io.BufferedReader, trust: Trust, request: InspectionRequest) -> InspectionReport:
    """The report; raises MemoryError, and whatever a custom class raises that is no Exception."""
    try:
        loaded = load(stream, trust)
    except LoadRefused as refused:
        return InspectionReport.failed(short(str(refused)), "", _environment(refused.trained_with))
    environment = _environment(loaded.trained_with or sklearn.__version__)
    estimator = loaded.object
    name = describe(estimator)
    try:
        signature, classes = _examine(estimator, request)
    except (CallFailed, Misfit) as wrong:
        return InspectionReport.failed(short(str(wrong)) + _version_hint(loaded), name, environment)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  estimators raise all kinds
        why = short(f"The estimator failed: {type(error).__name__}: {error}")
        return InspectionReport.failed(why + _version_hint(loaded), name, environment)
    return InspectionReport(None, signature, classes, name, environment, _warnings(loaded))


def _environment(trained_with: str | None) -> dict[str, str]:
    """What the artifact meets here, and the scikit-learn that trained it, where that is known."""
    here = {"python": platform.python_version(), "scikit-learn": sklearn.__version__, "numpy": np.__version__}
    return here | ({} if trained_with is None else {"trained_with": f"scikit-learn {trained_with}"})


def short(text: str) -> str:
    """At most 2,000 printable characters, with no path of this machine in them."""
    clean = _PATH.sub("…", "".join(c if c.isprintable() else " " for c in text))
    return clean if len(clean) <= _LONGEST_TEXT else f"{clean[: _LONGEST_TEXT - 1]}…"


def _version_hint(loaded: Loaded) -> str:
    return "" if loaded.trained_with is None else f" {other_version(loaded.trained_with)}"


def _warnings(loaded: Loaded) -> tuple[str, ...]:
    if loaded.trained_with is None:
        return ()
    here = sklearn.__version__
    advice = f"Compare its answers with those at training, or train it again with {here}."
    return (f"Trained with scikit-learn {loaded.trained_with}, served with {here}: answers may differ. {advice}",)


def _examine(estimator: Any, request: InspectionRequest) -> tuple[Signature, tuple[str, ...] | None]:
    _check_estimator(estimator, request.task)
    settle(estimator)
    classes = tuple(map(str, class_labels(estimator))) if request.task is Task.CLASSIFICATION else ()
    reading = read_columns(estimator)
    draft = draft_signature(reading, request)
    caller = Caller(estimator, draft, request.task, classes)
    sample = _sample_batch(draft, request) if request.sample else None
    if sample is not None:
        _run_sample(caller, sample)
    try:
        base = base_batch(caller, draft, hints_in_order(reading, draft), sample)
    except CallFailed:
        raise  # the task's promises are broken, whatever the row
    except Exception as error:  # noqa: BLE001  estimators raise all kinds
        raise Misfit(
            f"The model could not be tried out without real rows ({_say(error)}): register it again with a sample of 5 or more rows."
        ) from None
    return _settle_required(caller, draft, base, request), classes or None


def _check_estimator(estimator: Any, task: Task) -> None:
    if not hasattr(estimator, "predict"):
        what = "a transformer" if hasattr(estimator, "transform") else f"a {type(estimator).__name__}"
        hint = " Save the fitted estimator itself, not a container around it." if isinstance(estimator, dict | list | tuple) else ""
        raise Misfit(f"The artifact holds {what}, which has no predict method.{hint}")
    if is_clusterer(estimator) or is_outlier_detector(estimator):
        raise Misfit("Clusterers and outlier detectors are neither classifiers nor regressors: they are not served.")
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise Misfit("The estimator is not fitted: call fit before saving it.") from None
    except TypeError:
        pass  # a custom class that is no scikit-learn estimator
    if task is Task.CLASSIFICATION and is_regressor(estimator):
        raise Misfit("The estimator is a regressor, but the model's task is CLASSIFICATION.")
    if task is Task.REGRESSION and is_classifier(estimator):
        raise Misfit("The estimator is a classifier, but the model's task is REGRESSION.")


def hints_in_order(reading: Reading, draft: Signature) -> dict[int, Hint]:
    """The hints by position in the signature: given columns may stand in another order than the estimator's."""
    if reading.names is None:
        return reading.hints
    trained = {name: i for i, name in enumerate(reading.names)}
    return {i: reading.hints[trained[c.name]] for i, c in enumerate(draft.columns) if trained[c.name] in reading.hints}


def _sample_batch(draft: Signature, request: InspectionRequest) -> Batch:
    try:
        return batch_from_rows(draft, request.sample)
    except InvalidFeatures as refused:
        first = refused.details["problems"][0]
        column = "" if first["name"] is None else f", column {first['name']!r}"
        row = first.get("row", 0)
        raise Misfit(f"sample[{row}]{column}: expected {first['expected']}, got {first['got']}.") from None


def _run_sample(caller: Caller, sample: Batch) -> None:
    try:
        caller(sample)
    except Exception as error:  # noqa: BLE001  estimators raise all kinds
        for number, row in enumerate(rows_of(sample)):
            try:
                caller(row)
            except Exception as why:  # noqa: BLE001  estimators raise all kinds
                raise Misfit(f"sample[{number}]: the estimator failed: {_say(why)}") from None
        raise Misfit(f"The estimator failed on the sample as a whole, though on no single row of it: {_say(error)}") from None


def _settle_required(caller: Caller, draft: Signature, base: Batch, request: InspectionRequest) -> Signature:
    """The signature with `required` as tried out: False where the estimator answers a row that misses the column."""
    if draft.kind is InputKind.TEXT:
        return replace(draft, columns=tuple(replace(column, required=True) for column in draft.columns))
    wanted = [i for i, c in enumerate(draft.columns) if request.columns is None or not c.required]
    optional = find_optional(caller, draft, base, wanted)
    if request.columns is None:
        return replace(draft, columns=tuple(replace(c, required=i not in optional) for i, c in enumerate(draft.columns)))
    refused = [draft.columns[i].name for i in wanted if i not in optional]
    if refused:
        raise Misfit(f"The signature lets {', '.join(refused)} be missing, but the estimator fails on a missing value there.")
    return draft


def _say(error: Exception) -> str:
    return str(error) if isinstance(error, CallFailed) else f"{type(error).__name__}: {error}"
