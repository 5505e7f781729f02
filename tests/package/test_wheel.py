"""The wheel: what is in it, and what a user does with it, in an environment that has nothing of the tree."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from package_rig import ROOT, Environment, empty_environment, pip

CHECK = ROOT / "scripts" / "check-wheel"
INSTALL_PAGE = ROOT / "docs" / "install.md"


def findings(wheel: Path) -> list[str]:
    ran = subprocess.run([sys.executable, CHECK, wheel], capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    found = [line.partition(": ")[2] for line in ran.stdout.splitlines() if ": good, " not in line]
    assert (ran.returncode == 1) == bool(found)
    return found


def test_the_wheel_is_what_it_should_be(wheel: Path) -> None:
    assert findings(wheel) == []


# --- the check sees what is wrong -----------------------------------------------------------------------------------

Files = dict[str, bytes]


def rewritten(wheel: Path, folder: Path, change: Callable[[Files], None], name: str | None = None) -> Path:
    """The wheel with other content, and a RECORD that is right for it."""
    with zipfile.ZipFile(wheel) as opened:
        files = {entry: opened.read(entry) for entry in opened.namelist()}
    change(files)
    record = next(entry for entry in files if entry.endswith("/RECORD"))
    lines = io.StringIO()
    for entry, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.write(f"{entry},,\n" if entry == record else f"{entry},sha256={digest},{len(content)}\n")
    files[record] = lines.getvalue().encode()
    made = folder / (name or wheel.name)
    with zipfile.ZipFile(made, "w") as out:
        for entry, content in files.items():
            out.writestr(entry, content)
    return made


def build_library(name: str) -> bytes:
    return (ROOT / "build" / "release" / name).read_bytes()


WRONG: dict[str, tuple[str, Callable[[Files], None]]] = {
    "a header is missing": (
        "content: header pool.h is missing",
        lambda files: files.__delitem__("umo/include/umo/pool.h"),
    ),
    "a licence is missing": (
        "licenses/jansson/LICENSE is missing",
        lambda files: files.__delitem__(next(name for name in files if "licenses/jansson" in name)),
    ),
    "a path of the builder": (
        "private: umo/server.py has the path",
        lambda files: files.update({"umo/server.py": f"# {ROOT}/x".encode()}),
    ),
    "symbols for debuggers": (
        "private: umo/lib/libumo.so.0 has symbols",
        lambda files: files.update({"umo/lib/libumo.so.0": build_library("lib/libumo.so.0")}),
    ),
    "a library that is not there": (
        "needs libjansson.so.4",
        lambda files: files.update(
            {
                "umo/backends/umo_kernel/libtriton_umo_kernel.so": build_library(
                    "backends/umo_kernel/libtriton_umo_kernel.so"
                )
            }
        ),
    ),
    "another library": (
        "content: umo/lib/libumo.so is a library that nobody expects",
        lambda files: files.update({"umo/lib/libumo.so": build_library("lib/libumo.so.0")}),
    ),
    "names that are not umo's": (
        "umo/_core.abi3.so exports memcpy",
        lambda files: files.update({"umo/_core.abi3.so": build_library("lib/libumo_spy.so")}),
    ),
    "compiled Python": (
        "umo/__pycache__/x.pyc is compiled Python",
        lambda files: files.update({"umo/__pycache__/x.pyc": b""}),
    ),
    "something beside the package": (
        "tests/x.py lies outside of the package",
        lambda files: files.update({"tests/x.py": b""}),
    ),
    "too large": ("size: ", lambda files: files.update({"umo/big.bin": os.urandom(5_000_000)})),
    "another module": (
        "content: umo/_other.abi3.so is a library that nobody expects",
        lambda files: files.update({"umo/_other.abi3.so": files["umo/_core.abi3.so"]}),
    ),
}


@pytest.fixture(scope="module")
def findings_of_a_bad_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of one that has all that is wrong: none of it hides another."""

    def spoil(files: Files) -> None:
        for _, change in WRONG.values():
            change(files)

    return findings(rewritten(wheel, tmp_path_factory.mktemp("bad"), spoil))


@pytest.mark.parametrize("what", WRONG)
def test_the_check_finds(what: str, findings_of_a_bad_wheel: list[str]) -> None:
    text, _ = WRONG[what]
    assert any(text in line for line in findings_of_a_bad_wheel), findings_of_a_bad_wheel


def test_the_check_finds_a_tag_that_promises_too_much(wheel: Path, tmp_path: Path) -> None:
    made = rewritten(wheel, tmp_path, lambda files: None, re.sub(r"manylinux_\d+_\d+", "manylinux_2_17", wheel.name))
    found = findings(made)
    assert any("tag: WHEEL says" in line for line in found), found
    assert any("tag: what is in it is manylinux_2_" in line for line in found), found


def test_the_check_finds_a_tag_for_an_extension_that_is_not_there(wheel: Path, tmp_path: Path) -> None:
    found = findings(rewritten(wheel, tmp_path, lambda files: files.__delitem__("umo/_core.abi3.so")))
    assert any("without an extension" in line for line in found), found


def test_the_check_finds_a_file_that_was_changed(wheel: Path, tmp_path: Path) -> None:
    made = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as opened, zipfile.ZipFile(made, "w") as out:
        for entry in opened.namelist():
            content = opened.read(entry)
            out.writestr(entry, content + b"\n" if entry == "umo/paths.py" else content)
    assert any("umo/paths.py does not have the sum" in line for line in findings(made))


# --- used -----------------------------------------------------------------------------------------------------------


def test_everything_comes_from_the_package(installed: Environment) -> None:
    said = installed.python_says(
        "import ctypes, json, umo.paths as p\n"
        "lib = ctypes.CDLL(str(p.library())); lib.umo_version.restype = ctypes.c_char_p\n"
        "import umo, umo._core\n"
        "assert (p.include() / 'umo' / 'umo.h').is_file() and (p.share() / 'cmake' / 'umo').is_dir()\n"
        "assert p.source_tree() is None and p.build() is None\n"
        "context = umo.Context()\n"
        "lines = [line.rstrip().split(maxsplit=5) for line in open('/proc/self/maps')]\n"
        "loaded = {line[5] for line in lines if len(line) == 6 and 'umo' in line[5]}\n"
        "print(json.dumps([lib.umo_version().decode(), umo.__version__, sorted(loaded), str(p.backends())]))\n"
    )
    version, package_version, loaded, backends = json.loads(said)
    assert version == package_version
    files = [name for name in loaded if not name.startswith("/memfd:")]
    assert str(installed.site / "umo/lib/libumo.so.0") in files
    assert all(name.startswith(str(installed.site)) for name in files), files  # one library, and the package's
    assert backends == str(installed.site / "umo" / "backends")


def test_variables_of_a_source_tree_mean_nothing_to_a_package(installed: Environment) -> None:
    ran = installed.run(
        installed.python,
        "-c",
        "import umo.paths as p; print(p.library(), p.source_tree())",
        more={"UMO_ROOT": str(ROOT), "UMO_BUILD": str(ROOT / "build" / "release")},
    )
    assert ran.stdout.split() == [str(installed.site / "umo/lib/libumo.so.0"), "None"]


def test_all_modules_import_with_what_is_declared(plain: Environment) -> None:
    """But for those of other extras: `demo` makes models and the demonstration, `perfetto` writes its traces."""
    package = plain.site / "umo"
    modules = []
    for path in sorted(package.rglob("*.py")):
        name = ".".join(("umo", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        if not name.startswith(("umo.models", "umo.demo", "umo.profile.perfetto")) and not name.endswith("__main__"):
            modules.append(name)
    assert len(modules) > 20
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    ran = plain.run(plain.python, "-c", code, *modules)
    assert ran.returncode == 0, ran.stderr


def test_the_command_says_its_version(installed: Environment) -> None:
    ran = installed.run("umo", "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip() == installed.python_says("import umo; print(umo.__version__)")


def documented_commands() -> list[str]:
    """The commands that docs/install.md promises, from the installation to the first answer."""
    text = INSTALL_PAGE.read_text()
    block = re.search(r"<!-- three commands -->\n```\n(.*?)```", text, re.DOTALL)
    assert block, "docs/install.md lacks its three commands"
    return block.group(1).strip().splitlines()


def test_the_documents_agree_on_the_three_commands() -> None:
    commands = documented_commands()
    assert len(commands) <= 3
    assert "\n".join(commands) in (ROOT / "python" / "README.md").read_text()


def of_server(pid: int) -> set[str]:
    """Files that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/" in line}


def test_the_first_answer(installed: Environment, ports: tuple[int, int, int]) -> None:
    """The second and third command of docs/install.md, as they stand there; the first has made this environment."""
    _, serve, ask = documented_commands()
    words = serve.split()
    assert words[0] == "umo"
    if ports[0] != 8000:
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            words.append(f"--{name}-port={port}")
        ask = ask.replace("localhost:8000", f"localhost:{ports[0]}")
    log = installed.home / "example.log"
    with log.open("w") as sink:
        running = subprocess.Popen(
            words,
            cwd=installed.home,
            env=installed.variables(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            executable=installed.folder / "bin" / "umo",
        )
    try:
        deadline = time.monotonic() + 60
        while "ready; ask it" not in log.read_text():
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        ran = installed.run("sh", "-c", ask)
        answer = {output["name"]: output["data"] for output in json.loads(ran.stdout)["outputs"]}
        assert answer["SPECIES"] == ["versicolor"]
        assert sum(answer["PROBABILITY"]) == pytest.approx(1, abs=1e-5)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        every = {thread.name for thread in Path(f"/proc/{running.pid}/task").iterdir()}
        for thread in every:
            children += Path(f"/proc/{running.pid}/task/{thread}/children").read_text().split()
        mapped = {name for child in children for name in of_server(int(child))}
        assert any(name.endswith("libtriton_umo_onnxruntime.so") for name in mapped)
        assert not [name for name in mapped if name.startswith(str(ROOT))]
    finally:
        running.send_signal(signal.SIGINT)
        status = running.wait(60)
    assert status == 0, log.read_text()


def test_without_a_server_it_says_how_to_get_one(plain: Environment) -> None:
    ran = plain.run("umo", "example", "--ask")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == (
        "umo: no tritonserver found; pip install 'umo[server]', or set UMO_TRITONSERVER to the binary\n"
    )


def test_the_example_asks_itself(installed: Environment) -> None:
    ran = installed.run("umo", "example", "--ask", "--json", timeout_s=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["species"] == "versicolor"
    assert not (installed.home / "umo-example" / ".iris.part").exists()


def test_a_folder_that_cannot_be_written_is_an_error_in_words(installed: Environment) -> None:
    ran = installed.run("umo", "example", "--write", "/proc/umo-example")
    assert ran.returncode == 2
    assert ran.stderr.startswith("umo: /proc/umo-example: ") and len(ran.stderr.splitlines()) == 1


def test_what_a_user_changed_stays(installed: Environment) -> None:
    folder = installed.home / "mine"
    assert installed.run("umo", "example", "--write", folder).returncode == 0
    (folder / "iris" / "config.pbtxt").write_text("# mine\n")
    assert installed.run("umo", "example", "--write", folder).returncode == 0
    assert (folder / "iris" / "config.pbtxt").read_text() == "# mine\n"


def test_the_package_can_be_linked(installed: Environment, tmp_path: Path) -> None:
    """A C program against the package's headers and library, found by pkg-config. (The compiler is the developer's.)"""
    share = Path(installed.python_says("import umo.paths as p; print(p.share())"))
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "umo"],
        env={"PATH": os.environ["PATH"], "PKG_CONFIG_LIBDIR": str(share / "pkgconfig")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    program = tmp_path / "use"
    library = share.parent / "lib"
    source = ROOT / "tests" / "package" / "outside" / "use.c"
    subprocess.run(["cc", "-std=c11", "-o", program, source, *flags, f"-Wl,-rpath,{library}"], check=True)
    ran = subprocess.run([program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == installed.python_says("import umo; print(umo.__version__)")


def test_man_finds_the_pages(installed: Environment) -> None:
    pages = {path.name for path in (installed.folder / "share" / "man" / "man1").iterdir()}
    assert {"umo.1", "umo-serve.1", "umo-example.1"} <= pages
    assert (installed.folder / "share" / "bash-completion" / "completions" / "umo").is_file()


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_uninstalling_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    made = empty_environment(tmp_path)
    before = everything(made.folder)
    made.install(wheel)
    assert "umo" in {path.name for path in (made.folder / "bin").iterdir()}
    made.python_says("import umo.paths as p; print(p.library())")  # leaves compiled Python
    pip(made, "uninstall", "-y", "umo")
    left = everything(made.folder) - before
    # Folders of the environment's own layout may stay, empty.
    assert not [name for name in left if not (made.folder / name).is_dir()], left


def test_a_package_without_its_library_says_so(wheel: Path, tmp_path: Path) -> None:
    made = empty_environment(tmp_path)
    made.install(wheel)
    (made.site / "umo" / "lib" / "libumo.so.0").unlink()
    ran = made.run(made.python, "-c", "import umo.paths as p; p.library()")
    assert "FileNotFoundError: umo's package lacks library: " in ran.stderr
    shutil.rmtree(made.site / "umo" / "lib")
    ran = made.run(made.python, "-c", "import umo.paths as p; p.backends()")
    assert "this package holds Python code only; install a wheel of umo" in ran.stderr


def test_versions_agree() -> None:
    cmake = re.search(r"project\(umo VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())
    tree = ast.parse((ROOT / "python" / "umo" / "__init__.py").read_text())
    python = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__"
    ]
    assert cmake and [cmake.group(1)] == python
