"""What one writes by hand: a Starlette route that calls scikit-learn in process. No tenants, no tokens, no features, no log.

`python serve_starlette.py PORT FOLDER`: `POST /NAME` with {"rows": [[...], ...]} is answered by FOLDER/NAME.joblib.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

MODELS = {path.stem: joblib.load(path) for path in Path(sys.argv[2]).glob("*.joblib")}  # noqa: TID251  models that the bench trained itself


async def predict(request: Request) -> Response:
    rows = np.array(orjson.loads(await request.body())["rows"])
    answer = {"probabilities": MODELS[request.path_params["name"]].predict_proba(rows)}
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/{name}", predict, methods=["POST"])]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
