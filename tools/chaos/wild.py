"""A model that does what its first feature says: five values of it are trouble. Travels by value (cloudpickle)."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import cloudpickle
import numpy as np
from sklearn.linear_model import LogisticRegression

NAN, DIES, EATS, SLOW, HANGS = 2.125, 3.125, 4.125, 5.125, 6.125
SLEEPS_S = 10.0


class Wild(LogisticRegression):  # type: ignore[misc]  # no types are published for it
    """A classifier of three numbers."""

    def predict_proba(self, X: Any) -> Any:  # noqa: N803  scikit-learn's name
        """Probabilities, or what the first feature of any row asks for."""
        rows = np.asarray(X, dtype=float)
        asked = set(rows[:, 0])  # exactly: whoever inspects a version tries large numbers, too
        if HANGS in asked:
            while True:
                pass
        if SLOW in asked:
            time.sleep(SLEEPS_S)
        if EATS in asked:
            kept = []
            while True:
                kept.append(np.ones(8 << 20))
        if DIES in asked:
            os._exit(3)
        if NAN in asked:
            return super().predict_proba(rows * 0.0) * np.nan
        return super().predict_proba(rows)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """As `predict_proba`."""
        return self.classes_[np.asarray(self.predict_proba(X)).argmax(axis=1)]


def wild_artifact() -> bytes:
    """Fitted; for a service that loads custom classes (TURNOUT_ARTIFACT_TRUST=full)."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    data: bytes = cloudpickle.dumps(Wild().fit(*_data()))
    return data


def tame() -> LogisticRegression:
    """What stands in for it."""
    return LogisticRegression().fit(*_data())


def _data() -> tuple[Any, Any]:
    features = np.random.default_rng(5).normal(size=(60, 3))
    return features, (features[:, 0] > 0).astype(int)
