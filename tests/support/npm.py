"""Node and npm from the environment's own wheel: packages as a lock file has them, and scripts that use them."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
_KEPT = {
    "HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "LANG",
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
}


def install(folder: Path) -> None:
    """`npm ci`, once for each state of the lock file."""
    lock = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == lock:
        return
    shutil.rmtree(folder / "node_modules", ignore_errors=True)
    command = [BIN / "npm", "ci", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    stamp.write_text(lock)


def node(folder: Path, script: str, **environ: str) -> str:
    """What the script in the folder prints."""
    command = [BIN / "node", script]
    done = subprocess.run(
        command, cwd=folder, env={**_environment(), **environ}, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _environment() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name in _KEPT or name.lower().startswith("npm_config_")}
    # Where only pip was told whom to trust (a company's proxy, say), npm goes through the same door.
    trusted = [os.environ[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT") if os.environ.get(name)]
    if trusted:
        found.setdefault("NODE_EXTRA_CA_CERTS", trusted[0])
    return {**found, "PATH": f"{BIN}:/usr/bin:/bin"}
