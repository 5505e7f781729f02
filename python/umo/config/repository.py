"""Which file of a folder is a model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .model import NAMES


@dataclass(frozen=True)
class Found:
    """One model of a repository."""

    name: str
    folder: Path
    config: Path | None
    """None where there is none: the server completes it from the model."""
    ignored: Path | None = None
    """A config.json beside a config.pbtxt: the latter counts, as it does for a server."""


def _is_file(path: Path) -> bool:
    """Also what nobody lets us look at: who reads it says so, for this model and for no other."""
    try:
        return path.is_file()
    except PermissionError:
        return path.name == NAMES[0]


def find_one(folder: Path) -> Found:
    """What a model's folder has."""
    there = [folder / name for name in NAMES if _is_file(folder / name)]
    return Found(folder.name, folder, there[0] if there else None, there[1] if len(there) > 1 else None)


def is_model(folder: Path) -> bool:
    """Whether a folder is a model's own and no repository."""
    return any((folder / name).is_file() for name in NAMES)


def find_models(folder: Path) -> list[Found]:
    """The models of a repository, by name; or the one model whose folder this is.

    Raises OSError.
    """
    if is_model(folder):
        return [find_one(folder)]
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [find_one(entry) for entry in entries]
