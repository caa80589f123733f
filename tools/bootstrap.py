"""Make the virtual environment: `python3 tools/bootstrap.py VENV LOCK STAMP [STAMP ...]`. Standard library only.

Installs exactly what the lock file names, by hash, then this project itself, and touches each STAMP.
Where the system's Python lacks ensurepip (Debian splits it off), the environment borrows the pip of that Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)


def say(text: str) -> None:
    print(f"turnout set-up: {text}", flush=True)


def fail(text: str) -> None:
    sys.exit(f"turnout set-up: {text}")


def has_module(name: str) -> bool:
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def make_venv(venv: Path) -> list[str]:
    """The pip command that installs into `venv`, which exists afterwards."""
    python = str(venv / "bin" / "python")
    own_pip = [python, "-m", "pip"]
    if subprocess.run([*own_pip, "--version"], capture_output=True, check=False).returncode == 0 if venv.exists() else False:
        return own_pip
    shutil.rmtree(venv, ignore_errors=True)
    if has_module("ensurepip"):
        say(f"making a virtual environment in {venv}")
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        return own_pip
    if has_module("pip"):
        say(f"making a virtual environment in {venv} (no ensurepip here: using the system's pip for it)")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        return [sys.executable, "-m", "pip", "--python", python]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    fail(
        f"{sys.executable} has neither ensurepip nor pip, so nothing can be installed.\n"
        f"  On Debian or Ubuntu:  apt-get install {version}-venv\n"
        f"  On Fedora or RHEL:    dnf install python3-pip\n"
        "  Then run the same make command again."
    )
    raise AssertionError("unreachable")


def install(pip: list[str], lock: Path) -> None:
    say(f"installing the locked dependencies from {lock} (the first time this takes a minute or two)")
    command = [*pip, "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    subprocess.run([*command, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], check=True)


def link_project(venv: Path) -> None:
    """Make `app` importable and `turnout` a command, without a build step: a .pth file and a three-line script."""
    root = Path(__file__).resolve().parent.parent
    site = next((venv / "lib").glob("python3.*/site-packages"))
    (site / "turnout.pth").write_text(f"{root}\n")
    script = venv / "bin" / "turnout"
    # A shebang line holds 127 bytes on Linux: a clone at a long path must not depend on it.
    script.write_text('#!/bin/sh\nexec "$(dirname "$(readlink -f "$0")")/python" -P -m app.cli.main "$@"\n')
    script.chmod(0o755)


def main(arguments: list[str]) -> None:
    if sys.version_info < OLDEST:
        fail(
            f"needs Python {OLDEST[0]}.{OLDEST[1]} or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12 run"
        )
    venv, lock, *stamps = (Path(a) for a in arguments)
    install(make_venv(venv), lock)
    link_project(venv)
    for stamp in stamps:
        stamp.touch()
    say("done")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        fail(
            f"this step failed with status {error.returncode}: {' '.join(map(str, error.cmd))}\n"
            "  What it printed above says why. Fix it and run the same make command again."
        )
