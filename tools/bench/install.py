"""`make bench-peers`: each model server into an environment of its own, .bench/NAME, by the hashes of peers/NAME.lock.

    python -m tools.bench.install [NAME ...] [--lock]

One that this Python cannot install is noted with the reason, which the report repeats; the others go on. `--lock` writes the lock files
anew from peers/NAME.in. An environment that was made from the same lock file is left as it is.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tools.bench.servers import ENVIRONMENTS, MODEL_SERVERS, PEERS

LOCK_OPTIONS = [
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-header",
    "-q",
]


def lock(name: str) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "pip", "compile", f"{name}.in", *LOCK_OPTIONS, "-o", f"{name}.lock"], cwd=PEERS, check=True)


def install(name: str) -> bool:
    """Whether it is there now."""
    folder, locked = ENVIRONMENTS / name, PEERS / f"{name}.lock"
    stamp, failed = folder / "installed", folder.with_suffix(".failed")
    digest = hashlib.sha256(locked.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        print(f"{name}: installed already")
        return True
    print(f"{name}: installing into {folder.name}, which takes a minute or two", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    failed.unlink(missing_ok=True)
    ENVIRONMENTS.mkdir(exist_ok=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, "--require-hashes", "-r", str(locked)]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            reason = next((line for line in reversed(done.stdout.splitlines()) if "ERROR" in line), done.stdout.strip()[-300:])
            failed.write_text(reason.strip(), encoding="utf-8")
            print(f"{name}: {reason.strip()}")
            return False
    stamp.write_text(digest, encoding="utf-8")
    return True


def main(arguments: list[str]) -> None:
    known = list(dict.fromkeys(server.environment for server in MODEL_SERVERS if server.environment))
    names = [name for name in arguments if not name.startswith("--")] or known
    if unknown := set(names) - set(known):
        sys.exit(f"no such server: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if "--lock" in arguments:
        for name in names:
            lock(name)
    there = [install(name) for name in names]
    if not any(there):
        sys.exit("none of them could be installed")


if __name__ == "__main__":
    main(sys.argv[1:])
