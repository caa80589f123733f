"""The servers that we are measured beside: how each is started, asked and known to be ready.

Each is set up as its own guide says, with one process for HTTP and one for the model at most, access logs off, every thread pool at
one thread (it has one core), and everything that it would tell its maker or cache in our home switched off or put in a folder of the run.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bench import models
from tools.bench.service import ROOT, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

PEERS = Path(__file__).with_name("peers")
ENVIRONMENTS = ROOT / ".bench"
JSON_HEADERS = {"Content-Type": "application/json"}
QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Place:
    """Where one server runs in this measurement."""

    folder: Path  # its own, empty at first; HOME and caches are in it
    models: Path  # the trained models, NAME.joblib
    port: int  # the next two are free, too

    def environment(self, binaries: Path) -> dict[str, str]:
        """What its process is told; `binaries`: its virtual environment's, for servers that start others by name."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}  # noqa: TID251  a tool's edge
        own = {
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "BENCH_MODELS": str(self.models),
        }
        return {"PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin", **kept, **QUIET, **own}


@dataclass(frozen=True)
class Server:
    """One of them. `environment`: the folder of its virtual environment; None: ours."""

    name: str
    title: str
    command: Callable[[Place, str], list[str]]  # of a place and a model's name
    path: Callable[[str], str]  # where a model is asked
    body: Callable[[str, NDArray[Any]], Any]  # what is sent to it
    expected: str  # what every answer holds
    environment: str | None = None
    one_model: bool = False  # serves one model a process
    one_row_alone: bool = False

    @property
    def bin(self) -> Path:
        return Path(sys.executable).parent if self.environment is None else ENVIRONMENTS / self.environment / "bin"

    def missing(self) -> str | None:
        """Why it cannot be measured; None where it can."""
        if self.environment is None or (self.bin.parent / "installed").exists():
            return None
        note = self.bin.parent.with_suffix(".failed")
        if note.exists():
            return f"could not be installed on this Python: {note.read_text(encoding='utf-8').strip()}"
        return f"not installed (`make bench-peers` installs it from tools/bench/peers/{self.environment}.lock)"


def _echo(place: Place, _model: str) -> list[str]:
    return [sys.executable, "-P", str(PEERS / "serve_echo.py"), str(place.port)]


def _starlette(place: Place, _model: str) -> list[str]:
    return [sys.executable, "-P", str(PEERS / "serve_starlette.py"), str(place.port), str(place.models)]


def _mlserver(place: Place, _model: str, **more: Any) -> list[str]:
    ports = {"http_port": place.port, "grpc_port": place.port + 1, "metrics_port": place.port + 2}
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", **ports}
    (place.folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    for path in place.models.glob("*.joblib"):
        own = place.folder / path.stem
        own.mkdir(exist_ok=True)
        model = {"name": path.stem, "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": str(path)}, **more}
        (own / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return [str(ENVIRONMENTS / "mlserver/bin/mlserver"), "start", str(place.folder)]


def _mlserver_gathering(place: Place, model: str) -> list[str]:
    """Requests that come within 2 ms of each other make one call, which its guide calls adaptive batching."""
    return _mlserver(place, model, max_batch_size=64, max_batch_time=0.002)


SAVE = """import sys, joblib, mlflow.sklearn
mlflow.sklearn.save_model(joblib.load(sys.argv[1]), sys.argv[2], pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle")"""


def _mlflow(place: Place, model: str) -> list[str]:
    """Its own format, written by its own tool."""
    binaries, saved = ENVIRONMENTS / "mlflow/bin", place.folder / model
    if not saved.exists():
        run([str(binaries / "python"), "-c", SAVE, str(place.models / f"{model}.joblib"), str(saved)], place.environment(binaries))
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(place.port), "--workers", "1"]
    return [str(binaries / "mlflow"), "models", "serve", "--model-uri", str(saved), *options]


def _bentoml(place: Place, _model: str) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--working-dir", str(PEERS)]
    return [str(ENVIRONMENTS / "bentoml/bin/bentoml"), "serve", "serve_bentoml:Models", *options]


def _litserve(place: Place, _model: str) -> list[str]:
    return [str(ENVIRONMENTS / "litserve/bin/python"), str(PEERS / "serve_litserve.py"), str(place.port), str(place.models)]


def _named(model: str, rows: NDArray[Any]) -> Any:
    return {"name": model, "rows": rows.tolist()}


def _tensor(_model: str, rows: NDArray[Any]) -> Any:
    """The Open Inference Protocol's."""
    tensor = {"name": "predict", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return {"inputs": [tensor], "outputs": [{"name": "predict_proba"}]}


ECHO = Server("echo", "bare ASGI echo", _echo, lambda _: "/", lambda _, rows: {"rows": rows.tolist()}, '"probability"', one_row_alone=True)
STARLETTE = Server(
    "starlette", "bare Starlette, scikit-learn", _starlette, lambda model: f"/{model}", lambda _, rows: {"rows": rows.tolist()}, "[[0"
)
MODEL_SERVERS = (
    Server("mlserver", "MLServer", _mlserver, lambda model: f"/v2/models/{model}/infer", _tensor, '"data":[', "mlserver"),
    Server(
        "mlserver-gathering",
        "MLServer, requests gathered",
        _mlserver_gathering,
        lambda model: f"/v2/models/{model}/infer",
        _tensor,
        '"data":[',
        "mlserver",
        one_row_alone=True,
    ),
    Server(
        "mlflow",
        "MLflow models serve",
        _mlflow,
        lambda _: "/invocations",
        lambda _, rows: {"inputs": rows.tolist()},
        '"predictions"',
        "mlflow",
        one_model=True,
    ),
    Server("bentoml", "BentoML", _bentoml, lambda _: "/predict", _named, "[[", "bentoml"),
    Server("litserve", "LitServe", _litserve, lambda _: "/predict", _named, '"probabilities"', "litserve"),
)
OTHERS = (ECHO, STARLETTE, *MODEL_SERVERS)


def version_of(server: Server) -> str:
    """Of the package itself and of the scikit-learn that it calls."""
    package = server.environment or {"echo": "uvicorn", "starlette": "starlette"}[server.name]
    asked = f"import importlib.metadata as m; print(m.version('{package}'), m.version('scikit-learn'))"
    told = run([str(server.bin / "python"), "-c", asked]).split()
    return f"{package} {told[0]}" if server is ECHO else f"{package} {told[0]}, scikit-learn {told[1]}"


def bodies(make: Callable[[NDArray[Any]], Any], count: int) -> list[bytes]:
    """The requests' bodies with `count` rows each: many where they are small, so that no two requests in a row are the same."""
    return [json.dumps(make(rows), separators=(",", ":")).encode() for rows in models.rows_of(count, number_of_bodies(count))]


def number_of_bodies(rows: int) -> int:
    return {1: 2000, 100: 64}.get(rows, 8)


def header_lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in headers.items())
