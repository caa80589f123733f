"""A regressor that answers twice its only column, and for some inputs dies, hangs or answers nonsense. Loads only where any class may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
from sklearn.linear_model import LinearRegression

if TYPE_CHECKING:
    from pathlib import Path

GOOD, ENDS, CRASHES, HANGS, NAN, SHAPE, RAISES = 1.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0


def moody(name: str = "moody", times: float = 2.0) -> bytes:
    """As an artifact; each name has bytes of its own."""
    model = _class()().fit(np.array([[0.0], [1.0]]), np.array([0.0, 1.0]))
    model.name_, model.times_ = name, times
    data: bytes = cloudpickle.dumps(model)
    return data


def moody_file(folder: Path, name: str = "moody") -> Path:
    """Made where it is not there: cloudpickle names each class anew."""
    path = folder / f"{name}.joblib"
    if not path.exists():
        path.write_bytes(moody(name))
    return path


def _class() -> Any:
    """Made in a function, it travels by value."""

    class Moody(LinearRegression):
        def predict(self, X: Any) -> Any:  # noqa: N803  scikit-learn's name
            import ctypes
            import os

            rows = X[:, 0]
            if (rows == 10.0).any():
                os._exit(3)
            if (rows == 11.0).any():
                ctypes.string_at(0)
            while (rows == 12.0).any():
                pass
            if (rows == 13.0).any():
                return rows * float("nan")
            if (rows == 14.0).any():
                return rows[:0]
            if (rows == 15.0).any():
                raise ValueError("not in the mood")
            return rows * self.times_

    return Moody
