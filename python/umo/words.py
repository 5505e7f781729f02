"""The library's own words for every reason and every result: what happened, and what to do about it.

They are asked of libumo and written nowhere in Python, so that a page, a report or a message cannot say something else
than the library that runs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from . import paths

_MOST = 4096  # lists far longer than this do not come from umo


class Words(NamedTuple):
    label: str  # "control_data", "NOMEM"
    cause: str
    remedy: str


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(paths.library()))


def _function(name: str) -> Callable[[int], str]:
    function = getattr(_library(), name)
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_int]
    return lambda number: function(number).decode()


def _all(label: str, cause: str, remedy: str, unknown: str) -> tuple[Words, ...]:
    label_of, cause_of, remedy_of = map(_function, (label, cause, remedy))
    found = []
    while (named := label_of(len(found))) != unknown and len(found) < _MOST:
        found.append(Words(named, cause_of(len(found)), remedy_of(len(found))))
    return tuple(found)


@cache
def reasons() -> tuple[Words, ...]:
    """Why bytes are copied; a row's place is its number. Raises FileNotFoundError or OSError without a library."""
    return _all("umo_reason_label", "umo_reason_cause", "umo_reason_remedy", "unknown")


@cache
def results() -> tuple[Words, ...]:
    """What calls return; a row's place is its number. Raises as reasons() does."""
    return _all("umo_status_name", "umo_status_cause", "umo_status_remedy", "UNKNOWN")
