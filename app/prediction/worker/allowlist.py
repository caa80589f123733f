"""Which globals a restricted artifact may refer to: scikit-learn's classes, and the containers and numbers that fitted ones hold.

A list of names that are bad can always be walked round, so this is a list of what is good. It is the inner wall: a class's own
`__setstate__` still runs, which is why every artifact is loaded in a locked child whatever this list says.
"""

from __future__ import annotations

import inspect
from typing import Any


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BUILTINS = _names("bool bytearray bytes complex dict float frozenset int list object range set slice str tuple")
_NUMPY_TYPES = _names(
    "bool bool_ bytes_ complex128 complex64 datetime64 float16 float32 float64 floating generic int16 int32 int64 int8 integer intc "
    "intp longdouble longlong ndarray number object_ signedinteger str_ timedelta64 uint16 uint32 uint64 uint8 uintc uintp ulonglong "
    "unsignedinteger dtype"
)
_NUMPY_FUNCTIONS = _names(
    "abs all amax amin any around asarray argmax argmin array atleast_2d average clip column_stack concatenate cumsum diff hstack "
    "max mean median min nan_to_num nanmax nanmean nanmedian nanmin nanstd nansum percentile prod quantile ravel round squeeze std "
    "sum transpose var vstack where"
)
_EXACT = frozenset(
    {
        ("joblib.numpy_pickle", "NumpyArrayWrapper"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("re", "_compile"),
        ("sklearn.utils.validation", "check_array"),
        ("numpy.ma", "MaskedArray"),
        ("numpy.ma.core", "MaskedArray"),
        ("numpy.ma.core", "MaskedConstant"),
        ("numpy.ma.core", "_mareconstruct"),
        ("numpy.random.mtrand", "RandomState"),
        ("numpy.random._generator", "Generator"),
        ("numpy.random.bit_generator", "SeedSequence"),
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
        ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
        ("pandas._libs.internals", "_unpickle_block"),
        ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp"),
        ("pandas._libs.missing", "NAType"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas.core.internals.managers", "BlockManager"),
        ("pandas.core.internals.managers", "SingleBlockManager"),
        ("scipy.interpolate._bsplines", "BSpline"),
        ("scipy._lib.array_api_compat.numpy._aliases", "asarray"),
    }
    | {("builtins", name) for name in _BUILTINS}
    | {("numpy", name) for name in _NUMPY_TYPES | _NUMPY_FUNCTIONS}
    | {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
    | {("numpy.random._pickle", name) for name in ("__randomstate_ctor", "__bit_generator_ctor", "__generator_ctor")}
    | {(f"numpy.random._{name.lower()}", name) for name in ("MT19937", "PCG64", "Philox", "SFC64")}
)
_PANDAS_TYPES = _names(
    "BooleanDtype Categorical CategoricalDtype CategoricalIndex DataFrame DatetimeIndex Float32Dtype Float64Dtype Index Int16Dtype "
    "Int32Dtype Int64Dtype Int8Dtype Interval IntervalDtype IntervalIndex MultiIndex NA RangeIndex Series StringDtype Timedelta "
    "TimedeltaIndex Timestamp UInt16Dtype UInt32Dtype UInt64Dtype UInt8Dtype"
)
_PANDAS_ARRAYS = _names(
    "ArrowStringArray BooleanArray Categorical FloatingArray IntegerArray IntervalArray NumpyExtensionArray StringArray"
)
_SKLEARN_CLOSED = ("sklearn.datasets", "sklearn.externals", "sklearn.utils._testing", "sklearn.utils._mocking", "sklearn.experimental")
# Functions that an estimator holds as a parameter (a score, a metric, a function to apply): these rooms compute and do nothing else.
_SKLEARN_FUNCTIONS = tuple(
    f"sklearn.{room}."
    for room in ("cluster", "covariance", "feature_selection", "gaussian_process", "linear_model", "metrics", "neighbors", "preprocessing")
)
_SKLEARN_FUNCTIONS_EXACT = frozenset({("sklearn.neighbors._kd_tree", "newObj"), ("sklearn.neighbors._ball_tree", "newObj")})


def may_look_up(module: str, name: str) -> bool:
    """Whether this global is worth importing at all; `may_use` then judges what it turns out to be."""
    if (module, name) in _EXACT:
        return True
    if "." in name:  # "a.b" walks attributes: the way round every list of names
        return False
    if module == "sklearn" or module.startswith("sklearn."):
        return not module.startswith(_SKLEARN_CLOSED) and "tests" not in module.split(".")
    if module in {"pandas", "pandas.arrays"} or module.startswith(("pandas.core.", "pandas._libs.")):
        return name in _PANDAS_TYPES | _PANDAS_ARRAYS
    return module == "numpy" or module.startswith(("numpy.", "scipy.special", "scipy.sparse."))


def may_use(module: str, name: str, found: Any) -> bool:
    """Whether the object that a permitted look-up found is one that an artifact may hold and call."""
    if (module, name) in _EXACT or module.startswith("pandas"):
        return True
    home = getattr(found, "__module__", None) or ""
    if module.startswith("sklearn"):
        return _may_use_sklearn(module, name, found, home)
    if module == "numpy.dtypes":
        return name.endswith("DType")
    if module.startswith("scipy.sparse."):
        return isinstance(found, type) and home.startswith("scipy.sparse.") and name.endswith(("_matrix", "_array"))
    import numpy as np

    return isinstance(found, np.ufunc)


def _may_use_sklearn(module: str, name: str, found: Any, home: str) -> bool:
    if isinstance(found, type):
        return home.startswith("sklearn.") and not home.startswith(_SKLEARN_CLOSED)
    if not callable(found):
        return False
    if name.startswith("__pyx_unpickle_") or (module, name) in _SKLEARN_FUNCTIONS_EXACT or name == "newObj":
        return True
    return (inspect.isfunction(found) or type(found).__name__ == "cython_function_or_method") and home.startswith(_SKLEARN_FUNCTIONS)
