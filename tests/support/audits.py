"""Node from the environment's own wheel, and graphql-http's audit suite in it."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "contract" / "audits"
BIN = Path(sys.executable).parent


def run_audits(url: str, token: str) -> list[dict]:
    """Each audit as {id, name, status ("ok", "notice", "warn", "error"), reason}."""
    install()
    done = subprocess.run(
        [BIN / "node", "audit.mjs"], cwd=FOLDER, env={**_environment(), "AUDIT_URL": url, "AUDIT_TOKEN": token},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def install() -> None:
    """`npm ci`, once for each state of the lock file."""
    lock = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = FOLDER / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == lock:
        return
    shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
    done = subprocess.run([BIN / "npm", "ci"], cwd=FOLDER, env=_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    stamp.write_text(lock)


def _environment() -> dict[str, str]:
    import os

    kept = (
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
    )
    found = {name: value for name, value in os.environ.items() if name in kept or name.lower().startswith("npm_config_")}
    # Where only pip was told whom to trust (a company's proxy, say), npm goes through the same door.
    trusted = [os.environ[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT") if os.environ.get(name)]
    if trusted:
        found.setdefault("NODE_EXTRA_CA_CERTS", trusted[0])
    return {**found, "PATH": f"{BIN}:/usr/bin:/bin"}
