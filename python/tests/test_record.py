"""`umo record` on a process of our own: complete, counted, nothing left behind; and every way in which it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from umo import paths, profile
from umo.cli import Exit, app
from umo.cli import record as _record  # noqa: F401  registers itself

UMO = (sys.executable, "-m", "umo")

# Reads a number of events, or "?" for whether it records; counts upwards, so that a missing event is seen.
TARGET = """
import ctypes, sys, time
umo = ctypes.CDLL(sys.argv[1])
context, scope, error = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.create_string_buffer(272)
assert umo.umo_context_create(None, ctypes.byref(context), error) == 0
assert umo.umo_scope_create(None, b"counting\\x1b", ctypes.c_uint64(0), ctypes.byref(scope), error) == 0
copy = umo.umo_scope_count_copy
copy.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint64]
umo.umo_profile_switch.restype = ctypes.POINTER(ctypes.c_uint32)
switch, number = umo.umo_profile_switch(), 0
print("ready", flush=True)
for line in sys.stdin:
    if line == "?\\n":
        print(switch[0], flush=True)
        continue
    for _ in range(int(line)):
        copy(scope, 0, 3, number)
        number += 1
        if number % 4000 == 0:
            time.sleep(0.02)
    print(number, flush=True)
"""


class Target:
    def __init__(self, **environment: str) -> None:
        command = [sys.executable, "-c", TARGET, str(paths.library())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        assert self._line() == "ready"
        self.pid = self.process.pid

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, words: str | int) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait_on(self) -> None:
        deadline = time.monotonic() + 60
        while self.tell("?") == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.end()


def recorder(target: Target, *options: str) -> subprocess.Popen[str]:
    command = [*UMO, "record", "--pid", str(target.pid), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(running: subprocess.Popen[str], sent: signal.Signals | None = signal.SIGINT) -> str:
    if sent is not None:
        running.send_signal(sent)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert "Traceback" not in err
    return out


def test_a_recording_longer_than_the_ring_is_complete(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "x.umo"
    path.write_bytes(b"the old file")
    running = recorder(target, "-o", str(path), "--memory", "8", "--json")
    target.wait_on()
    first = target.tell(0)
    last = target.tell(150_000)
    assert path.read_bytes() == b"the old file"
    summary = json.loads(ended(running))
    assert summary["lost"] == summary["gaps"] == 0
    assert summary["events"] == last - first == 150_000
    read = profile.read(path)
    assert read.facts["capacity"] < 150_000
    assert np.array_equal(read.events["size_bytes"], np.arange(first, last, dtype=np.uint64))
    assert set(read.events["kind"].tolist()) == {profile.KINDS.index("copy")}
    assert list(read.scopes.values()) == ["counting?"]
    assert read.facts["pid"] == target.pid
    assert abs(read.facts["started"] / 1e9 - time.time()) < 120
    # It records no more, but for the event at which it finds out.
    target.tell(1)
    assert target.tell("?") == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.umo"]


def test_a_process_that_ends_is_an_end_and_what_it_did_is_there(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    running = recorder(target, "-o", str(path), "--format", "csv")
    target.wait_on()
    target.tell(1)
    time.sleep(0.3)  # the ring has been seen; what follows lies in it when the process is gone
    target.tell(1000)
    target.end()
    assert "the process ended" in ended(running, None)
    assert np.array_equal(profile.read(path).events["size_bytes"], np.arange(1001, dtype=np.uint64))


def test_a_recorder_that_is_killed_leaves_its_whole_blocks_and_no_recording(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "x.umo"
    running = recorder(target, "-o", str(path))
    target.wait_on()
    target.tell(140_000)
    time.sleep(1)
    running.kill()
    running.wait()
    (left,) = tmp_path.glob("x.umo.*")
    with pytest.raises(profile.ProfileError, match="cut short"):
        profile.read(left)
    part = profile.read(left, partial=True)
    assert part.facts["truncated"] is True
    assert len(part) >= 65_536
    assert np.array_equal(part.events["size_bytes"], np.arange(len(part), dtype=np.uint64))
    # `umo record --from` gives it too, when asked.
    runner = CliRunner()
    asked = ["record", "--from", str(left), "--format", "csv", "-o", str(tmp_path / "y.csv")]
    assert runner.invoke(app, asked).exit_code == Exit.USAGE
    assert runner.invoke(app, [*asked, "--partial"]).exit_code == Exit.OK
    assert len(profile.read(tmp_path / "y.csv")) == len(part)
    assert target.tell("?") == 1
    time.sleep(2.1)
    target.tell(1)
    assert target.tell("?") == 0


def test_the_output_may_be_a_pipe_that_closes(target: Target, tmp_path: Path) -> None:
    running = recorder(target, "-o", "-", "--format", "csv", "--seconds", "1")
    target.wait_on()
    target.tell(20)
    out, err = running.communicate(timeout=60)
    assert out.splitlines()[0] == profile.COLUMNS
    assert len(out.splitlines()) == 22
    assert "20 events" in err
    running = recorder(target, "-o", "-", "--format", "csv", "--seconds", "1")
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert "Traceback" not in running.stderr.read()
    assert running.wait(timeout=60) == 0


def refused(*options: str | Path) -> tuple[int, str]:
    """The exit status and the one line of an error."""
    result = CliRunner().invoke(app, ["record", *map(str, options)])
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("umo: ")
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return result.exit_code, lines[0]


def test_what_cannot_be_recorded_is_said(target: Target, tmp_path: Path) -> None:
    there = ("--pid", target.pid, "--seconds", 0.1)
    said = f"umo: no process has the pid {2**31 - 1}; `pgrep -l tritonserver` lists the servers that run"
    assert refused("--pid", 2**31 - 1) == (Exit.USAGE, said)
    for pid in ("0", "-1", str(2**70)):
        assert "no process" in refused("--pid", pid)[1]
    assert refused() == (
        Exit.USAGE,
        "umo: nothing to record; give --pid PID, or --from FILE for another form of a recording",
    )
    assert refused("--pid", 1, "--from", "x")[0] == Exit.USAGE
    assert "--format 'xml'" in refused(*there, "--format", "xml")[1]
    assert refused("--pid", target.pid, "--seconds", "0")[0] == Exit.USAGE
    assert refused("--pid", target.pid, "--seconds", "nan")[0] == Exit.USAGE
    assert refused(*there, "--memory", "1000")[0] == Exit.USAGE
    assert refused(*there, "--triton-trace", "x")[0] == Exit.USAGE
    status, words = refused(*there, "-o", tmp_path / "no" / "x.umo")
    assert (status, "no such folder" in words) == (Exit.USAGE, True)
    assert "directory" in refused(*there, "-o", tmp_path)[1]
    for form in ("umo", "csv", "chrome", "perfetto"):
        status, words = refused(*there, "-o", "/dev/full", "--format", form)
        assert (status, "No space left" in words) == (Exit.CANNOT_RUN, True)
    status, words = refused(*there, "--format", "chrome", "-o", tmp_path / "x", "--triton-trace", tmp_path / "none")
    assert (status, "none: No such file" in words) == (Exit.USAGE, True)
    assert refused("--from", tmp_path / "none")[0] == Exit.USAGE
    with Path(tmp_path / "x.umo").open("wb") as file:
        file.write(b"UMOPROF\n\2\0\0\0")
    assert (
        "version" in refused("--from", tmp_path / "x.umo")[1] or "cut short" in refused("--from", tmp_path / "x.umo")[1]
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.umo"]
    assert target.tell("?") in (0, 1)
    target.tell(1)
    assert target.tell("?") == 0


def test_processes_that_show_no_recorder() -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        status, words = refused("--pid", other.pid)
        assert (status, "shows no recorder" in words) == (Exit.USAGE, True)
    finally:
        other.kill()
        other.wait()
    assert "no process" in refused("--pid", other.pid)[1]
    hidden = Target(UMO_RECORDER="off")
    try:
        assert "UMO_RECORDER=off" in refused("--pid", hidden.pid)[1]
        assert hidden.tell(10) == 10
    finally:
        hidden.end()


def test_another_users_process_may_not_be_looked_at(target: Target, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # By the library alone: another user may not be able to read this tree.
    code = (
        "import ctypes, os, sys; umo = ctypes.CDLL(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "r, e = ctypes.c_void_p(), ctypes.create_string_buffer(272)\n"
        "s = umo.umo_recorder_open(ctypes.c_int64(int(sys.argv[2])), ctypes.byref(r), e); \n"
        "print(s, e.raw[8:].split(b'\\0')[0])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(paths.library()), str(target.pid)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("9 ")
    assert "may not be looked at" in ran.stdout


def test_taking_waits_as_long_as_it_is_told(target: Target) -> None:
    from umo.profile import recorder as module

    with module.Recorder(target.pid) as looking:
        looking.start()
        start = time.monotonic()
        assert len(looking.take(-1.0)[0]) == 0
        assert time.monotonic() - start < 5
        assert len(looking.take(0.3)[0]) == 0
        assert time.monotonic() - start >= 0.3
        target.tell(10)
        assert len(looking.take(0.3)[0]) == 10


def test_events_that_no_file_could_hold_are_lost_and_not_the_file(target: Target, tmp_path: Path) -> None:
    """A newer library's kind, or a hostile process: one event that cannot be read must not cost all the others."""
    from umo.profile import recorder as module

    with module.Recorder(target.pid) as looking:
        looking.start()
        target.tell(10)
        whole, _ = looking.take()
        assert len(whole) == 10 and looking.figures.lost == 0
        target.tell(10)
        real = looking._library.umo_recorder_wait

        class Later:
            """The library, with events of another version."""

            def __getattr__(self, name: str) -> object:
                return getattr(library, name)

            @staticmethod
            def umo_recorder_wait(*arguments: object) -> int:
                status = real(*arguments)
                looking._room["kind"][0], looking._room["status"][1] = 250, 250
                looking._room["mode"][2], looking._room["time_ns"][3] = 77, 1 << 63
                return int(status)

        library = looking._library
        looking._library = Later()  # type: ignore[assignment]
        some, _ = looking.take()
        assert (len(some), looking.taken, looking.figures.lost) == (6, 10, 4)
        looking._library = library
    made = profile.Profile(np.concatenate((whole, some)))
    profile.write(tmp_path / "x.umo", made)
    assert len(profile.read(tmp_path / "x.umo")) == 16
