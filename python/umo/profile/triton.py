"""The server's own trace file (--trace-config triton,file=...): requests and their timestamps.

The server writes it when it ends, or, with log-frequency, in parts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from .model import ProfileError

# What lies between two of the server's timestamps.
_STAGES = (
    ("request", "REQUEST_START", "REQUEST_END"),
    ("queue", "QUEUE_START", "COMPUTE_START"),
    ("compute", "COMPUTE_START", "COMPUTE_END"),
    ("inputs", "COMPUTE_START", "COMPUTE_INPUT_END"),
    ("infer", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START"),
    ("outputs", "COMPUTE_OUTPUT_START", "COMPUTE_END"),
)


@dataclass
class Traced:
    """One request as the server saw it. Times are nanoseconds of the system's monotonic clock."""

    number: int
    model: str = ""
    parent: int | None = None
    times: dict[str, int] = field(default_factory=dict)

    def stages(self) -> list[tuple[str, int, int]]:
        """(name, start, end), outer ones first."""
        return [
            (name, self.times[first], self.times[last])
            for name, first, last in _STAGES
            if first in self.times and last in self.times and self.times[first] <= self.times[last]
        ]


def read_triton(path: Path) -> dict[int, Traced]:
    """By their numbers. With log-frequency the server writes path.0, path.1, ...: then all of these, in any order.

    Raises ProfileError.
    """
    parts = [path] if path.exists() else sorted(path.parent.glob(f"{path.name}.*[0-9]"))
    found: dict[int, Traced] = {}
    for part in parts or [path]:
        _read(part, found)
    return found


def _read(path: Path, found: dict[int, Traced]) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProfileError(f"{path}: not a trace of the server: it is not UTF-8") from None
    text = text.strip()
    if not text.startswith("["):
        raise ProfileError(f"{path}: not a trace of the server: it does not begin with a list")
    if not text.endswith("]"):  # of a server that still runs
        text = text.rstrip(", \n") + "]"
    try:
        for row in json.loads(text):
            traced = found.setdefault(int(row["id"]), Traced(int(row["id"])))
            traced.model = str(row.get("model_name", traced.model))
            traced.parent = int(row["parent_id"]) if "parent_id" in row else traced.parent
            for stamp in row.get("timestamps", ()):
                traced.times[str(stamp["name"])] = int(stamp["ns"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProfileError(f"{path}: not a trace of the server, or cut in the middle of a row") from None
