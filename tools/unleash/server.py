"""A real Unleash server on the loopback: started, healthy, stopped; with tokens that are known beforehand."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tools import npm

HOST = "127.0.0.1"
_PACKAGES = Path(__file__).parent
_HEALTHY_WITHIN_S = 60.0
_STOP_WITHIN_S = 10.0
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may do what at the server. `backend` is the one that Turnout wants."""

    password: str  # of the user `admin`
    admin: str
    backend: str
    frontend: str
    secret: str

    @classmethod
    def kept(cls, file: Path) -> Credentials:
        """Those in `file`, made there where it was missing (mode 0600): a database takes its first tokens only once."""
        if file.exists():
            return cls(**json.loads(file.read_text()))
        made = cls.made()
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as writer:
            json.dump(asdict(made), writer)
        return made

    @classmethod
    def made(cls) -> Credentials:
        word = secrets.token_hex
        return cls(
            password="Aa1!" + word(8),
            admin=f"*:*.{word(24)}",
            backend=f"default:development.{word(24)}",
            frontend=f"default:development.{word(24)}",
            secret=word(16),
        )


class UnleashServer:
    """One server process over one PostgreSQL database, given by its URL. `folder`: where its log lies; `settings`: its variables."""

    def __init__(self, database_url: str, port: int, credentials: Credentials, folder: Path, **settings: str) -> None:
        self.url = f"http://{HOST}:{port}"
        self.port = port
        self.credentials = credentials
        self._database_url = database_url
        self._settings = settings
        self._log = folder / "unleash.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server is healthy; raises RuntimeError with the end of its log where it is not within a minute."""
        npm.install(_PACKAGES, "--omit=dev")  # a quarter of a minute the first time
        script = _PACKAGES / "node_modules" / "unleash-server" / "dist" / "server.js"
        command = [str(npm.node()), "--max-old-space-size=512", str(script)]
        ours = os.getpid()

        def bind_to_parent() -> None:  # runs between fork and exec
            if sys.platform == "linux":
                _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it keeps nothing but what its database has
                if os.getppid() != ours:
                    os._exit(1)

        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=script.parent,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for the owner, who then stops the server in order
                preexec_fn=bind_to_parent,  # noqa: PLW1509  only system calls
            )
        self._await_health()

    def stop(self) -> None:
        """Ends the server; harmless where it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Ends the server as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def call(self, method: str, path: str, body: Any = None, token: str | None = None, within_s: float = 10.0) -> Any:
        """The JSON that the server answers, None where there is none; as the admin unless another token is given.

        Raises RuntimeError with status and text of a refusal, OSError where the server is not there.
        """
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": token or self.credentials.admin},
        )
        try:
            with urllib.request.urlopen(request, timeout=within_s) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:1000]}") from None
        return json.loads(text) if text else None

    def _await_health(self) -> None:
        assert self._process is not None
        end = time.monotonic() + _HEALTHY_WITHIN_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                self.call("GET", "/health", within_s=2.0)
            except (OSError, RuntimeError):
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise RuntimeError(f"The Unleash server is not healthy. The end of {self._log}:\n{self._log.read_text(errors='replace')[-2000:]}")

    def _environment(self) -> dict[str, str]:
        known = self.credentials
        return {
            **npm.environment(),
            **_database(self._database_url),
            "NODE_ENV": "production",
            "TZ": "UTC",
            "HTTP_HOST": HOST,
            "HTTP_PORT": str(self.port),
            "UNLEASH_URL": self.url,
            "UNLEASH_SECRET": known.secret,
            "UNLEASH_DEFAULT_ADMIN_USERNAME": "admin",
            "UNLEASH_DEFAULT_ADMIN_PASSWORD": known.password,
            "INIT_ADMIN_API_TOKENS": known.admin,
            "INIT_BACKEND_API_TOKENS": known.backend,
            "INIT_FRONTEND_API_TOKENS": known.frontend,
            "GRACEFUL_SHUTDOWN_TIMEOUT": "1000",
            "CHECK_VERSION": "false",
            "SEND_TELEMETRY": "false",
            "LOG_LEVEL": "warn",
            **self._settings,
        }


def _database(url: str) -> dict[str, str]:
    """As Unleash's variables, which take the folder of a socket for a host."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return {
        "DATABASE_HOST": query["host"][0] if "host" in query else parts.hostname or "127.0.0.1",
        "DATABASE_PORT": query["port"][0] if "port" in query else str(parts.port or 5432),
        "DATABASE_USERNAME": unquote(parts.username or ""),
        "DATABASE_PASSWORD": unquote(parts.password or ""),
        "DATABASE_NAME": parts.path.lstrip("/"),
        "DATABASE_SSL": "false",
    }
