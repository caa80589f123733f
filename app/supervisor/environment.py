"""What each kind of child gets to know: commands and environments, written out. Nothing is inherited by accident."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.observability.exposition import METRICS_FOLDER, forget_process
from app.settings import ArtifactTrust
from app.supervisor.process import ChildSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.settings import Settings

_ROOT = Path(__file__).resolve().parent.parent.parent
_PLAIN = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")  # where and in which language; no secrets
_NETWORK = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_DATABASE = "TURNOUT_DATABASE_"


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """Where three roles connect. The owner's is not among them: it stays in the parent."""

    runtime: str
    log: str
    sync: str


def model_host(settings: Settings, environ: Mapping[str, str], socket: Path) -> ChildSpec:
    """No settings, no keys, no database: it loads other people's artifacts."""
    options = (
        "--socket", str(socket),
        "--memory-bytes", str(settings.registry.worker_memory_bytes),
        "--trust", "full" if settings.registry.artifact_trust is ArtifactTrust.FULL else "restricted",
    )  # fmt: skip
    # Just what the host keeps: anything more, and it would have to start again to be rid of it.
    env = {name: environ[name] for name in ("PATH", "LANG", "LC_ALL", "LC_CTYPE") if name in environ}
    env |= {"PYTHONPATH": str(_ROOT)} | dict.fromkeys(_ONE_THREAD, "1")
    return ChildSpec("the model host", _python("app.prediction.worker", *options), env, grace_s=2.0)


def drain(settings: Settings, environ: Mapping[str, str], urls: DatabaseUrls) -> ChildSpec:
    """The journal's drain: the log role alone."""
    env = _base(environ) | _own_settings(settings, environ) | {"TURNOUT_DATABASE_LOG_URL": urls.log}
    return ChildSpec("the journal drain", _python("app.journal", "--home", str(settings.home), "--last-effort", "3"), env, grace_s=3.5)


def serving(settings: Settings, environ: Mapping[str, str], listener: int, index: int) -> ChildSpec:
    """One serving process. It imports while the database starts, and waits to hear where that is: `serving_words`."""
    # Linear algebra on threads of its own would spin on the cores of others, for nothing: a batch takes microseconds of it.
    env = _base(environ, _NETWORK) | _own_settings(settings, environ) | dict.fromkeys(_ONE_THREAD, "1")
    command = _python("app.supervisor.warm", "app.main", "--fd", str(listener), "--index", str(index))
    forget = partial(forget_process, settings.home / METRICS_FOLDER)
    grace_s = settings.http.stop_grace_s + 6.0  # it answers what is under way for four seconds, and lets go of the rest
    return ChildSpec(f"serving process {index}", command, env, grace_s, fds=(listener,), waits=True, ended=forget, slot=index)


def serving_words(urls: DatabaseUrls) -> bytes:
    """What a serving process needs to know of the database: every role but the owner's."""
    return json.dumps(
        {"TURNOUT_DATABASE_URL": urls.runtime, "TURNOUT_DATABASE_LOG_URL": urls.log, "TURNOUT_DATABASE_SYNC_URL": urls.sync}
    ).encode()


def demo(settings: Settings, environ: Mapping[str, str], url: str) -> ChildSpec:
    """The demo's seeding: a client of the service, so it gets no database at all."""
    env = _base(environ) | _own_settings(settings, environ)
    return ChildSpec("the demo", _python("app.cli.main", "demo", "--url", url), env, grace_s=1.0)


def _python(module: str, *options: str) -> tuple[str, ...]:
    # -P: the folder in which somebody typed the command holds no modules of ours
    return (sys.executable, "-P", "-m", module, *options)


def _base(environ: Mapping[str, str], also: tuple[str, ...] = ()) -> dict[str, str]:
    env = {name: environ[name] for name in (*_PLAIN, *also) if name in environ}
    return env | {"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}


def _own_settings(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in environ.items() if name.startswith("TURNOUT_") and not name.startswith(_DATABASE)}
    own.pop("TURNOUT_TOKEN", None)
    beaten = {"TURNOUT_HOST": settings.http.host, "TURNOUT_PORT": str(settings.http.port), "TURNOUT_WORKERS": str(settings.http.workers)}
    return own | beaten | {"TURNOUT_HOME": str(settings.home)}  # as the command line's options left them
