"""Scripts in Node, with the packages that the lock file beside them names."""

import subprocess
from pathlib import Path

from tools import npm


def node(folder: Path, script: str, **environ: str) -> str:
    """What the script in the folder prints."""
    npm.install(folder)
    command = [npm.node(), script]
    done = subprocess.run(
        command, cwd=folder, env={**npm.environment(), **environ}, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
