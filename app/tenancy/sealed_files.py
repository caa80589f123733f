"""Files of this machine that hold what must neither be read nor changed by others: sealed, and written whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from app.tenancy.drafts import draft_of
from app.tenancy.keys import UnreadableSecret

if TYPE_CHECKING:
    from pathlib import Path

    from app.tenancy.keys import Box

__all__ = ["SealedFile", "SealedFolder", "UnreadableSecret"]
_log = logging.getLogger(__name__)


class SealedFolder:
    """One folder below TURNOUT_HOME. Each file is sealed under its name, so that none can take another's place."""

    def __init__(self, path: Path, box: Box) -> None:
        self.path = path
        self._box = box

    def file(self, name: str) -> SealedFile:
        return SealedFile(self, name)

    def read(self, name: str, about: str | None = None) -> bytes | None:
        """What was written; None where there is no such file. `about`: what it was sealed as, where that is not its name.

        Raises UnreadableSecret for bytes that are not those that were written, and OSError.
        """
        try:
            sealed = (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        return self._box.unseal(sealed, (about or name).encode())

    def write(self, name: str, data: bytes, about: str | None = None) -> None:
        """The file holds `data` from now on, also after a loss of power. Raises OSError, and then it holds what it held."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = draft_of(self.path / name)
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._box.seal(data, (about or name).encode()))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        self.sync()

    def sync(self) -> None:
        """What was renamed or removed here stays so, also after a loss of power. Raises OSError."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        """The file is gone, where it was there. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).unlink()


class SealedFile:
    """One file of the folder, for who can do without it: what cannot be read or written is in the log."""

    def __init__(self, folder: SealedFolder, name: str) -> None:
        self._folder, self._name = folder, name

    def read(self) -> bytes | None:
        """What was written last, or None. Blocks."""
        try:
            return self._folder.read(self._name)
        except (UnreadableSecret, OSError) as error:
            _log.warning("a kept file is refused", extra={"file": self._name, "reason": str(error)})
            return None

    def write(self, data: bytes) -> None:
        """Blocks."""
        try:
            self._folder.write(self._name, data)
        except OSError as error:
            _log.warning("a file could not be kept", extra={"file": self._name, "reason": error.strerror})
