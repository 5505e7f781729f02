"""How the tests of packages make a wheel, and environments that have it and nothing of the tree.

An environment holds exactly what the wheel says that it needs, and what that needs, each in the pinned version: the
files of .venv are copied by the distributions' own lists. What is not declared is not there. The long suite asks the
package index instead (test_index.py).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "build" / "wheel" / "dist"
# Only its binary is used; what its Python part would need is not in .venv (docs/dependencies.md).
BINARY_ONLY = frozenset({"nvidia-pytriton"})
TOOLS = ("sh", "curl")


def make_wheel(*arguments: str) -> None:
    ran = subprocess.run([ROOT / "scripts" / "wheel", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def find_wheel(platform: str) -> Path:
    (found,) = WHEELS.glob(f"umo-*-{platform}.whl")
    return found


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and how programs are run in it: with nothing else on PATH, elsewhere than in the tree."""

    folder: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    def variables(self) -> dict[str, str]:
        return {"PATH": f"{self.folder / 'bin'}:{self.home / 'tools'}", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}

    def run(
        self, *command: str | Path, timeout_s: float = 60, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.home,
            env={**self.variables(), **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def python_says(self, code: str) -> str:
        ran = self.run(self.python, "-c", code)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def install(self, wheel: Path) -> None:
        pip(self, "install", "--no-deps", "--no-index", str(wheel))


def pip(environment: Environment, *arguments: str) -> None:
    """.venv's pip, at work in another environment."""
    command = [sys.executable, "-m", "pip", "--python", str(environment.python), "-q", "--disable-pip-version-check"]
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, cwd=environment.home)
    assert ran.returncode == 0, ran.stderr


def empty_environment(folder: Path) -> Environment:
    home = folder / "home"
    (home / "tools").mkdir(parents=True)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is missing: run scripts/setup"
        (home / "tools" / tool).symlink_to(found)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    return Environment(folder / "venv", home)


def declared(wheel: Path, extra: str) -> list[str]:
    """Names of all distributions that `pip install umo[extra]` would bring, beside umo itself."""
    found: set[str] = set()

    def add(requirements: list[str], extras: set[str]) -> None:
        for text in requirements:
            requirement = Requirement(text)
            chosen = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if requirement.marker and not any(requirement.marker.evaluate(one) for one in chosen):
                continue
            name = canonicalize_name(requirement.name)
            if name == "umo":
                add(own, set(requirement.extras))
                continue
            if name in found and not requirement.extras:
                continue
            found.add(name)
            have = metadata.distribution(name)
            assert requirement.specifier.contains(have.version), f"{text}, but {have.version} is pinned"
            if name not in BINARY_ONLY:
                add(have.requires or [], set(requirement.extras))

    with zipfile.ZipFile(wheel) as opened:
        (entry,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        own = re.findall(r"^Requires-Dist: (.*)$", opened.read(entry).decode(), re.MULTILINE)
    add(own, {extra} if extra else set())
    return sorted(found)


def copy_distribution(name: str, site: Path) -> None:
    """Puts the files of one of .venv's distributions into another environment's site-packages."""
    files = metadata.files(name)
    assert files, f"{name} does not list its files"
    for file in files:
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        source = Path(str(file.locate()))
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)


def taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
