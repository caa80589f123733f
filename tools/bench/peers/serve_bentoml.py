"""A BentoML service as its guide shows one: `bentoml serve serve_bentoml:Models`, models in the folder that BENCH_MODELS names."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import joblib
import numpy as np  # noqa: TC002  BentoML reads the annotations

FOLDER = Path(os.environ["BENCH_MODELS"])  # noqa: TID251  a process of its own


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Models:
    def __init__(self) -> None:
        self.models = {path.stem: joblib.load(path) for path in FOLDER.glob("*.joblib")}  # noqa: TID251  trained by the bench itself

    @bentoml.api
    def predict(self, name: str, rows: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self.models[name].predict_proba(rows)
        return answer
