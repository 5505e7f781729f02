"""umo top on the command line: what it prints into a pipe, its exit statuses, and that nothing is ever a traceback."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PYTHON = [sys.executable, "-c", "import umo.cli.top\nfrom umo.cli import app\napp(prog_name='umo')", "top"]
PLAIN = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "LC_ALL": "C.UTF-8"}


class Metrics(http.server.BaseHTTPRequestHandler):
    """A server whose counters grow by 1 MiB of copies and 3 MiB of savings a reading."""

    reads = 0
    broken = False
    models = ("bert", "resnet")

    def do_GET(self) -> None:
        cls = type(self)
        cls.reads += 1
        if cls.broken:
            self.send_error(503)
            return
        lines = ["# TYPE umo_copy_bytes_total counter", "# TYPE umo_copy_avoided_bytes_total counter"]
        for name in cls.models:
            label = f'model="{name}",version="1"'
            lines.append(f'umo_copy_bytes_total{{{label},direction="in",reason="limit"}} {cls.reads << 20}')
            lines.append(f'umo_copy_avoided_bytes_total{{{label},direction="in"}} {3 * cls.reads << 20}')
        lines.append("# TYPE other gauge\nother 1")
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Metrics.reads, Metrics.broken, Metrics.models = 0, False, ("bert", "resnet")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join(10)


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PYTHON, *arguments], env={**PLAIN, **(env or {})}, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done


def test_into_a_pipe_it_prints_one_table_with_nothing_left_out(server: str) -> None:
    done = run(server, "--interval", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"http://{server}/metrics"
    head = next(line for line in lines if line.startswith("model"))
    assert head.split()[-1] == "refused/s" and "\x1b" not in done.stdout
    bert = next(line for line in lines if line.startswith("bert")).split()
    assert bert[3] == "75%" and bert[1].endswith("M")
    assert Metrics.reads == 2


def test_where_columns_says_so_it_fits_and_ascii_will_do(server: str) -> None:
    done = run(
        server, "--once", "--interval", "0.2", "--filter", "RES", env={"COLUMNS": "80", "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0 and done.stdout.isascii()
    table = done.stdout.splitlines()[2:]
    assert all(len(line) <= 80 for line in table)
    assert "resnet" in done.stdout and "bert" not in done.stdout


def test_json_once_is_one_object_with_all_figures(server: str) -> None:
    done = run(server, "--once", "--json", "--interval", "0.2", "--sort", "name")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert [entry["model"] for entry in said["models"]] == ["bert", "resnet"]
    bert = said["models"][0]
    assert bert["saved_share"] == 0.75
    assert bert["totals"]["copied/limit/in"] == 2 << 20
    assert bert["moved_bytes_per_s"] == pytest.approx((1 << 20) / said["interval_s"], rel=0.02)


def test_json_is_one_object_a_refresh_also_when_there_is_no_answer(server: str) -> None:
    with subprocess.Popen(
        [*PYTHON, server, "--json", "--interval", "0.2"], env=PLAIN, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["models"]
        Metrics.broken = True
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert any("503" in entry.get("error", "") for entry in seen)
        Metrics.broken = False
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert any("models" in entry for entry in seen)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_reader_that_has_enough_is_no_error(server: str) -> None:
    with subprocess.Popen(
        [*PYTHON, server, "--json", "--interval", "0.1"], env=PLAIN, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_statuses_and_words(server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    Metrics.models = ()
    for arguments, status, words in (
        ((closed,), 3, f"umo: http://{closed}/metrics: connection refused; check that a server is up"),
        ((server, "--interval", "0.1"), 1, "no model of umo's backends is loaded there"),
        ((server, "--json", "--once", "--interval", "0.1"), 1, ""),
        (("ftp://x",), 2, "neither http:// nor https://"),
        ((server, "--sort", "size"), 2, "--sort size is no column to sort by; write one of moved, saved"),
        ((server, "--interval", "0"), 2, "--interval"),
    ):
        done = run(*arguments)
        assert done.returncode == status, (arguments, done)
        assert words in done.stderr
        assert len(done.stderr.splitlines()) <= 1 or status == 2


def test_a_second_reading_that_fails_is_said(server: str) -> None:
    with subprocess.Popen(
        [*PYTHON, server, "--once", "--interval", "2"], env=PLAIN, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + 20
        while Metrics.reads == 0 and time.monotonic() < end:
            time.sleep(0.02)
        Metrics.broken = True
        _, said = process.communicate(timeout=30)
        assert process.returncode == 3 and b"503" in said and b"Traceback" not in said


def read_until(fd: int, text: bytes) -> bytes:
    said = b""
    end = time.monotonic() + 30
    while text not in said and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                said += os.read(fd, 65536)
            except OSError:
                break
    return said


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}], ids=["colour", "no colour"])
def test_on_a_terminal_it_is_a_screen_that_ends_with_q(server: str, env: dict[str, str]) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [*PYTHON, server, "--interval", "0.3"],
        env={**PLAIN, "TERM": "xterm", **env},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    try:
        said = read_until(master, b"resnet")
        assert b"resnet" in said and b"\x1b[?1049h" in said  # the other screen
        os.write(master, b"q")
        said += read_until(master, b"\x1b[?1049l")
        assert process.wait(20) == 0
        assert b"Traceback" not in said
        assert termios.tcgetattr(slave)[3] == before[3]  # echo and lines are as they were
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def test_a_dull_terminal_gets_the_table(server: str) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*PYTHON, server, "--interval", "0.2"],
        env={**PLAIN, "TERM": "dumb", "COLUMNS": "80"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    try:
        said = read_until(master, b"resnet")
        assert process.wait(20) == 0
        assert b"\x1b" not in said and b"saved" in said
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)
