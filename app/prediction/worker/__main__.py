"""The model host: `python -m app.prediction.worker --socket PATH --memory-bytes N --trust restricted|full`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FIRST_UID = 60706  # 60706 to 61183 belong to nobody by systemd's table of user ids; a child takes one of them as root
UIDS = 478


def main() -> None:
    _start_clean()
    options = _options()
    from app.prediction.worker import warm
    from app.prediction.worker.unpickle import Trust
    from app.prediction.worker.zygote import Zygote

    options.socket.unlink(missing_ok=True)  # its appearance says that the host is ready
    warm.import_everything()
    zygote = Zygote(options.socket, options.memory_bytes, Trust(options.trust), range(options.first_uid, options.first_uid + options.uids))
    zygote.run()


def _start_clean() -> None:
    """Begins again with a clean environment: what a process started with stays readable in its memory, in every fork of it too."""
    environ = os.environ  # noqa: TID251  to see what must go
    clean = {name: environ[name] for name in _KEPT if name in environ} | dict.fromkeys(_THREADS, "1")
    if dict(environ) != clean:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], clean)  # noqa: S606  the same program, no shell


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.prediction.worker", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where to listen; made with mode 0600")
    parser.add_argument("--memory-bytes", type=int, required=True, help="what one model may use")
    parser.add_argument("--trust", choices=("restricted", "full"), required=True, help="which classes are unpickled")
    parser.add_argument("--first-uid", type=int, default=FIRST_UID, help="first of the user ids that children take as root")
    parser.add_argument("--uids", type=int, default=UIDS, help="how many of them, and so how many children at most")
    return parser.parse_args()


if __name__ == "__main__":
    main()
