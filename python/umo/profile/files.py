"""A file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO


class Replacing:
    """Writes beside `path` and takes its name with commit(). A path that is no regular file (a pipe, /dev/null), and
    "-" for the standard output, are written to directly. The file is its owner's alone.
    """

    def __init__(self, path: Path) -> None:
        self._target: Path | None = None
        self._beside: Path | None = None
        self.file: BinaryIO
        if str(path) == "-":
            self.file = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        elif path.exists() and not stat.S_ISREG(path.stat().st_mode):
            if path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            self.file = path.open("wb")
        else:
            self._target = path.resolve()
            number, beside = tempfile.mkstemp(prefix=self._target.name + ".", dir=self._target.parent)
            self._beside = Path(beside)
            self.file = os.fdopen(number, "wb")

    def commit(self) -> int:
        """The bytes that were written, where that is known."""
        self.file.flush()
        size = 0
        if self._beside is not None and self._target is not None:
            os.fsync(self.file.fileno())
            size = os.fstat(self.file.fileno()).st_size
            os.replace(self._beside, self._target)
            self._beside = None
        self.file.close()
        return size

    def cancel(self) -> None:
        """Leaves what was there before. Does nothing after commit()."""
        if self._beside is not None:
            self._beside.unlink(missing_ok=True)
            self._beside = None
        with contextlib.suppress(OSError, ValueError):  # what is left in its buffer may not fit either
            self.file.close()

    def __enter__(self) -> Replacing:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
