"""umo.paths: an installed package and a source tree never find each other's files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from umo import paths

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "libumo.0.dylib" if sys.platform == "darwin" else "libumo.so.0"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UMO_ROOT", "UMO_BUILD"):
        monkeypatch.delenv(name, raising=False)


def package_in(folder: Path) -> ModuleType:
    """The module as if the package lay in this folder."""
    package = folder / "umo"
    package.mkdir(parents=True, exist_ok=True)
    copy = package / "paths.py"
    copy.write_text(Path(paths.__file__).read_text())
    spec = importlib.util.spec_from_file_location("umo_paths_elsewhere", copy)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree_in(folder: Path, name: str = "umo") -> Path:
    (folder / "python" / "umo").mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.25)\nproject({name} VERSION 1.0)\n")
    return folder


def test_a_tree_has_its_own_build() -> None:
    assert paths.source_tree() == ROOT
    assert paths.build() == ROOT / "build" / "release"
    assert paths.include() == ROOT / "include"
    assert paths.share() is None and not paths.installed()


def test_another_tree_is_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tree_in(tmp_path / "other")
    monkeypatch.setenv("UMO_ROOT", str(other))
    assert paths.build() == other / "build" / "release"
    with pytest.raises(FileNotFoundError, match="library not built: .*other/build/release/lib/.*; run `make build`"):
        paths.library()
    library = other / "build" / "release" / "lib" / LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    assert paths.library() == library


def test_a_variable_that_names_no_tree_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMO_ROOT", str(tree_in(tmp_path / "else", name="something")))
    with pytest.raises(FileNotFoundError, match="UMO_ROOT names .*/else, which is no source tree of umo"):
        paths.source_tree()


def test_another_build_is_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backends").mkdir()
    monkeypatch.setenv("UMO_BUILD", str(tmp_path))
    assert paths.build() == tmp_path
    assert paths.backends() == tmp_path / "backends"


def test_a_package_uses_what_it_carries_and_no_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even inside a source tree, in its environment, with the variables of one."""
    tree = tree_in(tmp_path / "tree")
    site = tree / "python"
    for folder in ("lib", "backends", "include"):
        (site / "umo" / folder).mkdir()
    (site / "umo" / "lib" / LIBRARY).touch()
    package = package_in(site)
    monkeypatch.setenv("UMO_ROOT", str(ROOT))
    monkeypatch.setenv("UMO_BUILD", str(ROOT / "build" / "release"))
    assert package.installed() and package.source_tree() is None and package.build() is None
    assert package.library() == site / "umo" / "lib" / LIBRARY
    assert package.backends() == site / "umo" / "backends"
    assert package.include() == site / "umo" / "include"
    with pytest.raises(FileNotFoundError, match="libumo_spy.so is not part of the package"):
        package.tool("libumo_spy.so")


@pytest.mark.parametrize("place", ["lib/python3.11/site-packages", "python"])
def test_python_code_alone_says_what_is_missing(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In somebody else's project with a CMakeLists.txt, started in a checkout of umo: neither is its tree."""
    (tmp_path / "CMakeLists.txt").write_text("project(theirs)\n")
    package = package_in(tmp_path / place)
    monkeypatch.chdir(ROOT)
    assert package.source_tree() is None
    for find in (package.library, package.backends, package.include):
        with pytest.raises(FileNotFoundError, match="holds Python code only; install a wheel of umo"):
            find()
