"""A model repository in the mission's form as one that a real server takes: links and converted configurations.

Nothing is copied and the source is never written to. A model whose configuration the server takes as it is becomes one
link to its folder; any other becomes a folder of links with a converted config.pbtxt. `sync` follows the source, so
that a server which polls, or is asked to load, sees what is there now. The folder is removed at the end; if this
process is killed, the next one that makes an overlay removes it (`owner` says whose it was).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .config import Model, Problem, check, convert, find_models, read
from .config.model import NAMES
from .config.repository import Found, is_model

_PREFIX = "umo-serve-"


def start_time(pid: int) -> str:
    """When a process started, in the kernel's figure: with the pid it names a process for good. "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _owner(pid: int) -> str:
    """Names a process for good, among all that share a folder with it: another container has pids of its own."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
    return f"{pid} {start_time(pid)} {namespace}"


def remove_abandoned(parent: Path) -> list[Path]:
    """Removes overlays of processes that are gone, and says which. Those of other users are left alone."""
    removed = []
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            pid, started, namespace = (folder / "owner").read_text().split(" ")
            if namespace != _owner(os.getpid()).split(" ")[2] or not namespace:
                continue  # nobody here can tell
            if start_time(int(pid)) == started:
                continue
        except (OSError, ValueError):
            continue  # being made, being removed, or not ours
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(folder)
    return removed


@dataclass
class Served:
    """One model of an overlay."""

    name: str
    source: Path
    model: Model | None = None
    """Its configuration; None where there is none."""
    backend: str = ""
    """As the server is told."""
    converted: bool = False
    stamp: tuple[object, ...] = ()
    problems: list[Problem] = field(default_factory=list)


class Overlay:
    """Repositories, as a server takes them; use it as a context manager.

    sources   folders of models
    replaced  backends to exchange, besides those that umo stands in for
    parent    where the overlay is made; default: a private place for temporary files
    """

    def __init__(
        self,
        sources: Iterable[str | Path],
        *,
        replaced: Mapping[str, str] | None = None,
        parent: str | Path | None = None,
    ) -> None:
        self._sources = [Path(os.path.abspath(source)) for source in sources]
        self._replaced = dict(replaced or {})
        self._parent = Path(parent or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        if not os.access(self._parent, os.W_OK | os.X_OK):
            self._parent = Path(tempfile.gettempdir())
        self.root = Path()
        self.models: dict[tuple[int, str], Served] = {}

    def __enter__(self) -> Overlay:
        remove_abandoned(self._parent)
        for source in self._sources:
            if not source.is_dir():
                raise NotADirectoryError(f"no model repository at {source}; check the path (`umo example` makes one)")
            if is_model(source):
                raise NotADirectoryError(f"{source} is one model; give the folder that it is in: {source.parent}")
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        try:
            (self.root / "owner").write_text(_owner(os.getpid()))
            for folder in (*self.repositories, self._making):
                folder.mkdir()
            self.sync()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes it. The models that it links to stay."""
        if self.root != Path():
            shutil.rmtree(self.root, ignore_errors=True)
            self.root = Path()

    @property
    def repositories(self) -> list[Path]:
        """One for each source."""
        return [self.root / f"models{index}" for index in range(len(self._sources))]

    @property
    def _making(self) -> Path:
        return self.root / "making"

    def sync(self) -> list[Problem]:
        """Brings the overlay to what the sources have now, and returns what there is to say about what changed.

        A configuration with an error leaves its model as it was; one that never was right is left out.
        """
        said: list[Problem] = []
        for index, source in enumerate(self._sources):
            try:
                there = {found.name: found for found in find_models(source)}
            except OSError:
                continue  # it may come back: nobody is served better by models that vanish
            for key in [key for key in self.models if key[0] == index and key[1] not in there]:
                self._remove(self.repositories[index] / key[1])
                del self.models[key]
            for name, found in there.items():
                stamp = _stamp(found)
                known = self.models.get((index, name))
                if known is None or known.stamp != stamp:
                    self.models[index, name] = self._place(self.repositories[index] / name, found, stamp, known)
                    said += self.models[index, name].problems
        return said

    def _place(self, target: Path, found: Found, stamp: tuple[object, ...], known: Served | None) -> Served:
        served = Served(found.name, found.folder, stamp=stamp)
        text = None
        if found.config is not None:
            served.model = model = read(found.config)
            served.problems = check(model, found.name, self._replaced)
            if found.ignored is not None:
                served.problems.append(
                    Problem("warning", str(found.ignored), "", f"is ignored: {found.config.name} counts")
                )
            if not any(problem.level == "error" for problem in served.problems):
                text = convert(model, self._replaced)
            if text is None:
                if known is not None:
                    served.converted, served.model, served.backend = known.converted, known.model, known.backend
                return served
            served.backend = read(NAMES[0], text.encode()).backend
            if found.config.name == NAMES[0] and text == model.text:
                text = None
        served.converted = text is not None
        if text is None:
            self._link(target, found.folder)
        else:
            self._fill(target, found.folder, text)
        return served

    def _link(self, target: Path, source: Path) -> None:
        if target.is_symlink() and target.readlink() == source:
            return
        made = self._making / target.name
        self._remove(made)
        made.symlink_to(source)
        self._exchange(made, target)

    def _fill(self, target: Path, source: Path, text: str) -> None:
        """A folder of links and a config.pbtxt: a new one, or the old one brought up to date."""
        whole = not target.is_dir() or target.is_symlink()
        folder = self._making / target.name if whole else target
        if whole:
            self._remove(folder)
            folder.mkdir()
        wanted = {entry.name: entry for entry in source.iterdir() if entry.name not in NAMES}
        for entry in list(folder.iterdir()):
            if entry.name not in wanted and entry.name != NAMES[0]:
                entry.unlink()
        for name, entry in wanted.items():
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(entry)
        made = self._making / ".config"  # no model's name
        made.write_text(text)
        made.replace(folder / NAMES[0])
        if whole:
            self._exchange(folder, target)

    def _exchange(self, made: Path, target: Path) -> None:
        self._remove(target)
        made.rename(target)

    @staticmethod
    def _remove(target: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if target.is_symlink():
                target.unlink()
            else:
                shutil.rmtree(target)


def _stamp(found: Found) -> tuple[object, ...]:
    """Changes whenever the overlay of a model has to: its configuration, or what lies beside it."""
    names: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        names = tuple(sorted(entry.name for entry in found.folder.iterdir()))
    if found.config is None:
        return (names,)
    try:
        status = found.config.stat()
    except OSError:
        return (names, None)
    return (names, found.config.name, status.st_mtime_ns, status.st_size, status.st_ino)
