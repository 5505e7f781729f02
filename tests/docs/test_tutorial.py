"""docs/tutorial.md does what it says: each command is run in its order, and what it prints is what the page shows.

The page is the only copy of the text. Its `console` blocks are run in one folder; `...` matches anything. Ports are
exchanged for free ones, and exchanged back in what is printed; a command that serves goes on until the page says ^C.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from umo import paths
from umo.server import free_ports

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
# Not run here: what installs is tests/package's (test_wheel.py does it from a wheel).
NOT_RUN = ["pip install 'umo[server]' onnx"]
READY_S = 60


@dataclass
class Step:
    command: str
    expected: list[str] = field(default_factory=list)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.S | re.M)


def steps() -> Iterator[Step]:
    """Commands of all console blocks, each with what it prints."""
    for block in blocks("console"):
        step: Step | None = None
        for line in block.splitlines():
            if line.startswith("$ ") or line == "^C":
                if step is not None:
                    yield step
                step = Step(line.removeprefix("$ "))
            elif line.startswith("> ") and step is not None:
                step.command += "\n" + line[2:]
            else:
                assert step is not None, f"a block begins with what no command printed: {line}"
                step.expected.append(line)
        if step is not None:
            yield step


def matches(expected: list[str], printed: str) -> bool:
    """Line by line; a line of `...` is any number of lines, `...` inside a line any text."""
    wanted = "".join(
        r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.rstrip().split("..."))) + r"[ ]*\n"
        for line in expected
    )
    return re.fullmatch(wanted, printed if printed.endswith("\n") or not printed else printed + "\n") is not None


class Shell:
    """A folder, an environment, ports of its own, and at most one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("8000", "8001", "8002"), map(str, free_ports(3)), strict=True))
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        for name in ("umo", "python"):
            module = " -m umo" if name == "umo" else ""
            (bin_folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
            (bin_folder / name).chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "python"),
            "UMO_BUILD": str(paths.build()),
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }
        self.server: subprocess.Popen[bytes] | None = None
        self.log = folder / "served.log"

    def here(self, text: str) -> str:
        """The page's text with this run's ports and server."""
        for name, port in self.ports.items():
            text = re.sub(rf"\b{name}\b", port, text)
        return text.replace("$(pgrep -n tritonserver)", str(self.tritonserver())) if "pgrep" in text else text

    def there(self, text: str) -> str:
        """What was printed as the page has it."""
        for name, port in self.ports.items():
            text = re.sub(rf"\b{port}\b", name, text)
        return text

    def tritonserver(self) -> int:
        assert self.server is not None
        for _ in range(100):
            for child in Path(f"/proc/{self.server.pid}/task").glob("*/children"):
                for pid in child.read_text().split():
                    if "tritonserver" in Path(f"/proc/{pid}/comm").read_text():
                        return int(pid)
            time.sleep(0.05)
        raise AssertionError("the server has no process")

    def serve(self, step: Step) -> str:
        command = self.here(step.command).split()
        http, grpc, metrics = self.ports.values()
        command += ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
        with self.log.open("wb") as sink:
            self.server = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                executable=str(self.folder / "bin" / command[0]),
            )
        until = time.monotonic() + READY_S
        last = self.here(step.expected[-1])
        while time.monotonic() < until:
            if last in (printed := self.log.read_text()):
                return printed
            assert self.server.poll() is None, printed
            time.sleep(0.1)
        raise AssertionError(f"not ready after {READY_S} s: {self.log.read_text()}")

    def end(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)
            try:
                self.server.wait(30)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
                raise
            self.server = None

    def run(self, step: Step) -> str:
        if step.command == "^C":
            self.end()
            return ""
        if step.command.startswith("umo serve"):
            return self.serve(step)
        done = subprocess.run(
            ["bash", "-c", f"{self.here(step.command)}\nwait"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{step.command}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    for name in set(re.findall(r"\.\./examples/client/(\w+\.py)", PAGE.read_text())):
        shutil.copy(ROOT / "examples" / "client" / name, tmp_path)
    yield made
    made.end()


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(shell: Shell) -> None:
    for step in steps():
        printed = shell.there(shell.run(step))
        assert matches(step.expected, printed), f"$ {step.command}\nthe page has\n{step.expected}\nnow\n{printed}"


def test_only_the_installation_is_not_run() -> None:
    assert [line for block in blocks("sh") for line in block.splitlines()] == NOT_RUN
    assert set(re.findall(r"^```(\w+)$", PAGE.read_text(), re.M)) == {"sh", "console"}


def test_what_a_page_shows_is_compared() -> None:
    assert matches(["a ... c", "...", "z"], "a b c\nx\ny\nz\n")
    assert not matches(["a ... c", "z"], "a b c\nx\nz\n")
    assert not matches(["14"], "15\n")
    assert not matches([], "something\n")
    assert len(list(steps())) > 15
