"""Where umo's own files lie: the library, the backends, the headers.

There are two cases, told apart by what lies beside this file and by nothing else, so that neither can find the other's
files by chance: an installed package carries all of them in itself (umo/lib, umo/backends, umo/include, umo/share); a
source tree has them in its build folder. Nothing here looks at the working directory or at PATH.

    UMO_ROOT    another source tree than the one that this file lies in
    UMO_BUILD   another build folder than build/release of the source tree

Both are of the source tree: an installed package does not look at them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_LIBRARY = "libumo.0.dylib" if sys.platform == "darwin" else "libumo.so.0"


def installed() -> bool:
    """Whether this package carries its own library and backends, as those from a wheel do."""
    return (_PACKAGE / "lib").is_dir()


def _is_source_tree(folder: Path) -> bool:
    try:
        text = (folder / "CMakeLists.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "project(umo " in text and (folder / "python" / "umo").is_dir()


def source_tree() -> Path | None:
    """The source tree that this package lies in (or UMO_ROOT); None when it is an installed one.

    Raises FileNotFoundError where UMO_ROOT names something else.
    """
    if installed():
        return None
    named = os.environ.get("UMO_ROOT")
    if named:
        root = Path(named).resolve()
        if not _is_source_tree(root):
            raise FileNotFoundError(f"UMO_ROOT names {named}, which is no source tree of umo; name a clone")
        return root
    root = _PACKAGE.parents[1]
    return root if _PACKAGE.parent.name == "python" and _is_source_tree(root) else None


def build() -> Path | None:
    """The source tree's build folder, made or not: UMO_BUILD, else build/release. None for an installed package."""
    root = source_tree()
    if root is None:
        return None
    named = os.environ.get("UMO_BUILD")
    return Path(named).resolve() if named else root / "build" / "release"


def _find(inside: Path, what: str, in_package: str, in_build: str) -> Path:
    """`inside`, which has to be there, of the package or else of the build folder."""
    if installed():
        path = _PACKAGE / in_package / inside
        if not path.exists():
            raise FileNotFoundError(f"umo's package lacks {what}: {path}; install umo again")
        return path
    built = build()
    if built is None:
        raise FileNotFoundError(
            f"umo has no {what}: this package holds Python code only; install a wheel of umo (docs/install.md), "
            "or use it from its source tree"
        )
    path = built / in_build / inside
    if not path.exists():
        raise FileNotFoundError(f"{what} not built: {path}; run `make build`")
    return path


def library() -> Path:
    """libumo.so.0, or libumo.0.dylib. Raises FileNotFoundError where it is not, with what to do about it."""
    return _find(Path(_LIBRARY), "library", "lib", "lib")


def backends() -> Path:
    """The folder that holds umo_identity, umo_kernel, umo_onnxruntime: what tritonserver's --backend-directory takes.

    Raises FileNotFoundError as library() does.
    """
    return _find(Path(), "backends", "backends", "backends")


def include() -> Path:
    """The folder that holds umo/umo.h. Raises FileNotFoundError as library() does."""
    root = source_tree()
    if root is not None:
        return root / "include"
    return _find(Path(), "headers", "include", "")


def share() -> Path | None:
    """Man pages, CMake package, licences of an installed package; None in a source tree."""
    folder = _PACKAGE / "share"
    return folder if installed() and folder.is_dir() else None


def tool(name: str) -> Path:
    """A program or a library that umo's tools run: libumo_spy.so, inproc_infer. Only a source tree has them.

    Raises FileNotFoundError.
    """
    if installed():
        raise FileNotFoundError(f"{name} is not part of the package; build umo from its source (docs/install.md)")
    return _find(Path(name), name, "", "lib" if name.startswith("lib") else "bin")
