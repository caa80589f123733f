"""A LitServe API as its guide shows one: `python serve_litserve.py PORT FOLDER`; POST /predict with {"name": ..., "rows": [[...], ...]}."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib
import litserve
import numpy as np


class Models(litserve.LitAPI):
    def setup(self, _device: str) -> None:
        self.models = {path.stem: joblib.load(path) for path in Path(sys.argv[2]).glob("*.joblib")}  # noqa: TID251  trained by the bench itself

    # Without annotations, as the guide has it: FastAPI would take them for parameters and for a model of the answer.
    def decode_request(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return request["name"], np.array(request["rows"])

    def predict(self, asked: tuple[str, Any]) -> Any:
        name, rows = asked
        return self.models[name].predict_proba(rows)

    def encode_response(self, output):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Models(), accelerator="cpu", workers_per_device=1, timeout=60, disable_openapi_url=True)
    server.run(port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error", access_log=False)
