"""The forms that a recording is turned into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from .binary import write_binary
from .chrome import write_chrome
from .files import Replacing
from .model import Profile
from .perfetto import write_perfetto
from .table import write_table
from .triton import read_triton

FORMS = ("umo", "csv", "chrome", "perfetto")


def converter(form: str, triton_trace: Path | None = None) -> Callable[[BinaryIO, Profile], None] | None:
    """What writes a recording as csv, chrome or perfetto; None for umo, which is what is recorded.

    The server's trace is read when the recording is over, as it is written meanwhile.
    """
    if form == "umo":
        return None
    if form == "csv":
        return write_table
    write = {"chrome": write_chrome, "perfetto": write_perfetto}[form]
    if form == "perfetto":
        from .perfetto import _messages

        _messages()  # before anything is recorded: is the package there?

    def joined(file: BinaryIO, profile: Profile) -> None:
        write(file, profile, read_triton(triton_trace) if triton_trace is not None else None)

    return joined


def convert(profile: Profile, path: Path, form: str, triton_trace: Path | None = None) -> int:
    """Writes a recording in any form; the file appears whole or not at all. Returns its size.

    Raises OSError, ProfileError.
    """
    write = converter(form, triton_trace) or write_binary
    with Replacing(path) as target:
        write(target.file, profile)
        return target.commit()
