from __future__ import annotations

import importlib

import numpy as np
import pytest
from sklearn.utils import all_estimators

from app.prediction.worker.allowlist import may_look_up, may_use
from app.prediction.worker.inspect import short

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("estimator", [cls for _, cls in all_estimators()], ids=lambda cls: cls.__name__)
def test_every_estimator_of_scikit_learn_is_on_the_list(estimator: type) -> None:
    assert may_look_up(estimator.__module__, estimator.__name__)
    assert may_use(estimator.__module__, estimator.__name__, estimator)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("subprocess", "Popen"),
        ("operator", "attrgetter"),
        ("joblib", "load"),
        ("joblib.numpy_pickle", "load"),
        ("joblib.numpy_pickle", "NDArrayWrapper"),
        ("pickle", "loads"),
        ("pandas", "read_pickle"),
        ("pandas.core.computation.eval", "eval"),
        ("scipy.stats._distn_infrastructure", "rv_continuous_frozen"),
        ("sklearn.datasets", "load_files"),
        ("sklearn.base", "BaseEstimator.__init__"),
        ("sklearn.utils._testing", "assert_run_python_script_without_output"),
        ("numpy.core.multiarray", "os.system"),
    ],
)
def test_what_could_do_harm_is_not_even_looked_up(module: str, name: str) -> None:
    assert not may_look_up(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy._core._internal", "recursive_fill_value"),
        ("numpy._core", "_ufunc_reconstruct"),
        ("numpy.testing", "rundocs"),
        ("numpy.lib._npyio_impl", "load"),
        ("numpy.random", "seed"),
        ("sklearn", "os"),
        ("sklearn.utils.discovery", "all_estimators"),
        ("sklearn.utils", "Path"),
        ("sklearn.utils.parallel", "joblib"),
        ("sklearn.metrics._scorer", "partial"),
        ("sklearn.metrics._classification", "warnings"),
    ],
)
def test_what_a_permitted_module_merely_holds_is_not_usable(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name, None) if may_look_up(module, name) else None
    assert found is None or not may_use(module, name, found)


@pytest.mark.parametrize("function", [np.log1p, np.sqrt, np.absolute, np.expm1])
def test_numpy_functions_of_one_value_are_taken(function: np.ufunc) -> None:
    assert may_look_up("numpy", function.__name__)
    assert may_use("numpy", function.__name__, function)


def test_a_text_for_people_has_no_path_and_no_control_character() -> None:
    assert short("no file '/root/secret/key' here\n\x1b[1m and/or there") == "no file '…' here  [1m and/or there"
    assert len(short("x" * 9_000)) == 2_000
