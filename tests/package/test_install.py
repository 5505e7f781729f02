"""What `cmake --install` puts into a prefix: used by programs outside of the tree, and by the real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from package_rig import ROOT

from umo import example
from umo.server import TritonServer

BUILD = Path(os.environ.get("UMO_BUILD", ROOT / "build" / "release"))
OUTSIDE = Path(__file__).resolve().parent / "outside"
VERSION = re.search(r"project\(umo VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)  # type: ignore[union-attr]


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed below DESTDIR for one prefix, then moved to another: nothing may care."""
    if not (BUILD / "cmake_install.cmake").is_file():
        pytest.fail("build/release is not built: make build")
    folder = tmp_path_factory.mktemp("install")
    run("cmake", "--install", BUILD, "--prefix", "/usr/local", env={"DESTDIR": str(folder / "destdir")})
    assert [path.name for path in (folder / "destdir").iterdir()] == ["usr"]
    moved = folder / "a prefix" / "umo"
    moved.parent.mkdir()
    (folder / "destdir" / "usr" / "local").rename(moved)
    return moved


def test_the_library_is_versioned(prefix: Path) -> None:
    real = prefix / "lib" / f"libumo.so.{VERSION}"
    assert real.is_file() and not real.is_symlink()
    assert (prefix / "lib" / "libumo.so.0").resolve() == (prefix / "lib" / "libumo.so").resolve() == real
    assert "Library soname: [libumo.so.0]" in run("readelf", "-d", real)


def test_all_public_headers_are_there_and_no_others(prefix: Path) -> None:
    names = {path.name for path in (ROOT / "include" / "umo").iterdir()}
    assert {path.name for path in (prefix / "include" / "umo").iterdir()} == names


def test_no_file_says_where_it_was_built_or_installed(prefix: Path) -> None:
    texts = [path for path in prefix.rglob("*") if path.suffix in (".cmake", ".pc", ".h", ".hpp", ".inc", ".1")]
    assert len(texts) > 30
    for path in texts:
        text = path.read_text()
        assert str(ROOT) not in text and "/usr/local" not in text, path
    for library in prefix.rglob("*.so*"):
        if library.is_file():
            said = re.findall(r"R(?:UN)?PATH.*\[(.*)\]", run("readelf", "-d", library))
            assert all(part.startswith("$ORIGIN") for paths in said for part in paths.split(":")), library


@pytest.fixture(scope="module")
def outside(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody else's project, with a backend whose sources are those of umo_identity."""
    made = tmp_path_factory.mktemp("outside")
    backend = ROOT / "triton" / "backends" / "identity"
    run(
        "cmake",
        "-S",
        OUTSIDE,
        "-B",
        made,
        "-G",
        "Ninja",
        f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DOUTSIDE_BACKEND={backend}",
    )
    run("cmake", "--build", made)
    return made


@pytest.mark.parametrize("program", ["use_c", "use_cxx"])
def test_cmake_finds_it(program: str, outside: Path) -> None:
    assert run(outside / program).strip() == VERSION


@pytest.mark.parametrize(("compiler", "source"), [(("cc", "-std=c11"), "use.c"), (("c++", "-std=c++17"), "use.cc")])
def test_pkg_config_finds_it(compiler: tuple[str, ...], source: str, prefix: Path, tmp_path: Path) -> None:
    where = {"PKG_CONFIG_LIBDIR": str(prefix / "lib" / "pkgconfig")}
    assert run("pkg-config", "--modversion", "umo", env=where).strip() == VERSION
    folder = run("pkg-config", "--variable=backendsdir", "umo", env=where).strip().replace("\\ ", " ")
    assert Path(folder).resolve() == prefix / "lib" / "umo" / "backends"
    # A shell reads the flags, as in somebody's Makefile: the prefix has a space in it.
    command = f"{' '.join(compiler)} -o use {OUTSIDE / source} $(pkg-config --cflags --libs umo)"
    run("sh", "-c", f'cd {tmp_path} && eval "{command}"', env=where)
    said = run(tmp_path / "use", env={"LD_LIBRARY_PATH": str(prefix / "lib")})
    assert said.strip() == VERSION


def test_another_version_is_refused(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(x LANGUAGES NONE)\nfind_package(umo 9.0 REQUIRED)\n"
    )
    ran = subprocess.run(
        ["cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0 and "version: 0.1.0" in ran.stderr


def test_installed_backends_serve(prefix: Path, outside: Path, tmp_path: Path) -> None:
    """The real server, with the prefix's folder of backends and one of somebody else's, built on the installed kit."""
    backends = prefix / "lib" / "umo" / "backends"
    mine = tmp_path / "backends"
    shutil.copytree(backends, mine)
    # Copied into another folder they find libumo there, as in a server's own folder.
    shutil.copy(prefix / "lib" / "libumo.so.0", mine)
    run("cmake", "--install", outside, "--prefix", mine)
    for library in mine.glob("*/*.so"):  # each by itself: in one process the first would find it for the others
        assert f"libumo.so.0 => {mine / library.parent.name}/" in run("ldd", library), library
    repository = tmp_path / "models"
    request = example.write(repository)
    model = repository / "echo"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(
        'backend: "outside"\nmax_batch_size: 0\n'
        'input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
        "instance_group [ { kind: KIND_CPU } ]\n"
    )
    with TritonServer(repository, backend_directory=mine) as server:
        mapped = {
            line.split(maxsplit=5)[5]
            for line in Path(f"/proc/{server.pid}/maps").read_text().splitlines()
            if "libumo" in line
        }
        assert mapped == {str((mine / "libumo.so.0").resolve())}
        assert example.ask(server, request)["species"] == "versicolor"
        asked = {"inputs": [{"name": "INPUT0", "shape": [3], "datatype": "INT32", "data": [7, 8, 9]}]}
        call = urllib.request.Request(
            f"http://{server.http_url}/v2/models/echo/infer", json.dumps(asked).encode(), method="POST"
        )
        with urllib.request.urlopen(call, timeout=30) as said:
            assert json.load(said)["outputs"][0]["data"] == [7, 8, 9]


# --- man pages ------------------------------------------------------------------------------------------------------


def test_man_pages_say_what_the_command_line_says() -> None:
    run(sys.executable, ROOT / "man" / "generate.py", "--check")


@pytest.mark.parametrize("page", sorted((ROOT / "man").glob("*.1")), ids=lambda path: path.name)
def test_man_page_has_no_warning(page: Path) -> None:
    ran = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", "-rLL=80n", page], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_variables_of_the_man_page_exist() -> None:
    """What umo(1) says of the environment is read by some module."""
    page = (ROOT / "man" / "umo.1").read_text()
    named = set(re.findall(r"^\\fB(UMO_\w+)\\fR", page, re.MULTILINE))
    code = "".join(path.read_text() for path in (ROOT / "python" / "umo").rglob("*.py"))
    assert named and not [name for name in named if f'"{name}"' not in code]


def test_completion_scripts_are_shell(tmp_path: Path) -> None:
    run("bash", "-n", ROOT / "man" / "completion" / "bash" / "umo")
