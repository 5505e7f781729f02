"""umo top on a real server: over its metrics, and over its flight recorder."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python" / "tests"))

import served  # noqa: E402
from top_rig import text_of  # noqa: E402

from umo.server import Metrics, TritonServer  # noqa: E402
from umo.top.app import Top  # noqa: E402
from umo.top.scrape import Scrape  # noqa: E402
from umo.top.source import ModelKey, Reading  # noqa: E402

TOP = [sys.executable, "-c", "import umo.cli.top\nfrom umo.cli import app\napp(prog_name='umo')", "top"]


@contextmanager
def load(server: TritonServer) -> Iterator[None]:
    over = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not over.is_set():
                for model in ("shared", "off", "kernel", "kernel_off"):
                    served.infer_shared(server, model)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failed


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*TOP, *arguments], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done


def looks(server: TritonServer, *arguments: str) -> Iterator[dict[str, Any]]:
    """What `umo top --once` says under load, several times: on a busy machine one look can miss a model's turn."""
    for interval_s in ("1", "2", "4"):
        with load(server):
            done = run(*arguments, "--once", "--json", "--interval", interval_s)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["models"]
        yield {**said, "models": {entry["model"]: entry for entry in said["models"]}}


def same(reading: Reading, own: Metrics, name: str) -> bool:
    """Whether the figures of a model are the same in both."""
    model = reading.models[ModelKey(name, "1")]
    sums = {"copied": "umo_copy_bytes_total", "avoided": "umo_copy_avoided_bytes_total"}
    return model.gauges["live",] == own.value("umo_live_bytes", model=name) and all(
        sum(value for key, value in model.counters.items() if key[0] == word)
        == sum(sample.value for sample in own.samples if sample.name == family and sample.labels["model"] == name)
        for word, family in sums.items()
    )


def test_a_reading_is_what_the_server_s_own_reader_says(server: TritonServer) -> None:
    served.scrape(server)
    for _ in range(50):  # an answer is there a little before what its request held is given back
        reading = Scrape(f"http://{server.metrics_url}/metrics").read()
        own = server.metrics()
        names = [name for name in ("shared", "off", "kernel", "kernel_off") if not same(reading, own, name)]
        if not names:
            return
        time.sleep(0.1)
    pytest.fail(f"other figures of {names}")


def test_once_says_what_is_moved_and_saved(server: TritonServer) -> None:
    for said in looks(server, server.metrics_url):
        models = said["models"]
        assert all(models[name]["saved_share"] in (0, None) for name in ("off", "kernel_off"))
        assert models["off"]["rates"].get("copied/disabled/out", 0) == models["off"]["moved_bytes_per_s"]
        if all(models[name]["moved_bytes_per_s"] > 1e6 for name in ("off", "kernel_off")) and all(
            models[name]["saved_bytes_per_s"] > 1e6 and models[name]["saved_share"] == 1
            for name in ("shared", "kernel")
        ):
            return
    pytest.fail(f"not all that the models move and save: {models}")


def test_the_screen_shows_a_real_server(server: TritonServer) -> None:
    source = Scrape(f"http://{server.metrics_url}/metrics")

    async def look() -> list[str]:
        app = Top(source, 0.5, first=source.read())
        async with app.run_test(size=(80, 24)) as pilot:
            for _ in range(100):
                await asyncio.sleep(0.1)
                if app.state.readings >= 3 and app.state.sum("saved") > 1e6:
                    break
            app.query_one("#models").move_cursor(row=[key.name for key in app._keys].index("off"))  # type: ignore
            lines = text_of(app)
            await pilot.press("enter")
            await asyncio.sleep(0.3)
            return lines + text_of(app)

    with load(server):
        lines = asyncio.run(look())
    assert lines[1].startswith("ready; pressure")
    for name in ("shared", "off", "kernel", "kernel_off"):
        assert any(line.startswith(f"{name} ") for line in lines)
    assert any(line.startswith("disabled ") for line in lines)
    assert any('set "enable": true' in line for line in lines)


def test_a_process_shows_its_buffers(server: TritonServer) -> None:
    for said in looks(server, "--pid", str(server.pid)):
        models = said["models"]
        moving = [entry for entry in said["buffers"] if entry["model"] == "kernel_off" and entry["rates"]]
        assert all(entry["size_bytes"] >= served.COUNT * 4 and entry["mode"] == "private" for entry in moving)
        if (
            moving
            and said["lost_events"] == 0
            and models["kernel_off"]["moved_bytes_per_s"] > 1e6
            and models["kernel"]["saved_bytes_per_s"] > 1e6
            and models["off"]["rates"].get("copied/disabled/out", 0) > 1e6
        ):
            return
    pytest.fail(f"not all that the models move: {said}")


def test_a_process_s_table_has_its_buffers_and_its_recording_ends(server: TritonServer) -> None:
    for _ in range(2):  # one after the other: the first has let go
        with load(server):
            done = run("--pid", str(server.pid), "--once", "--interval", "0.3", "--filter", "kernel_off")
        assert done.returncode == 0, done.stderr
        assert any(line.startswith("buffer") for line in done.stdout.splitlines())
        assert "private" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--pid", "999999999"], 2, "umo: "),
        (["--pid", "1", "x:1"], 2, "exclude each other"),
        (["--pid", "-5"], 2, "umo: "),
    ],
)
def test_processes_that_cannot_be_looked_at(arguments: list[str], status: int, words: str) -> None:
    done = run(*arguments)
    assert done.returncode == status and words in done.stderr
    assert len(done.stderr.splitlines()) == 1
