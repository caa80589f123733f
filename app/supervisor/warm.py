"""`python -m app.supervisor.warm MODULE OPTION...`: imports MODULE now, and runs its `main` once the parent says go.

A serving process imports for a second; meanwhile the parent starts and checks the database. What comes down standard input is
JSON: the variables to add to the environment. Database URLs among them are so in no process listing. End of file first: the
parent has given up, and so does this.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, cast

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from types import ModuleType

_UNUSED = ("rich",)  # structlog takes it where it is installed, as it is for commands: a seventh of what a serving process imports


def main(arguments: list[str]) -> None:
    """Never returns before the module's `main` does."""
    module, *options = arguments
    gc.disable()  # nothing of what imports make is garbage, now or later: not looking saves time here, and pauses while serving
    program = _without(_UNUSED, module)
    gc.freeze()
    gc.enable()
    words = sys.stdin.buffer.read()
    if not words:
        raise SystemExit(0)
    os.environ.update(json.loads(words))  # noqa: TID251  what an environment would have brought, had it been known in time
    sys.argv = [module, *options]
    try:
        program.main()
    except ConfigurationError as error:
        raise SystemExit(f"Error: {error}") from None  # for the person who configured it: a traceback says nothing to them


def _without(unused: tuple[str, ...], module: str) -> ModuleType:
    """The module, whose imports found none of the `unused` packages; afterwards they can be imported as ever."""
    absent = [name for name in unused if name not in sys.modules]
    for name in absent:
        sys.modules[name] = cast("ModuleType", None)  # which says that there is no such module
    try:
        return importlib.import_module(module)
    finally:
        for name in absent:
            del sys.modules[name]


if __name__ == "__main__":
    main(sys.argv[1:])
