"""The demonstration from end to end, with small tensors: right answers, believable bytes, nothing left behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from umo.models.repository import MODELS

# Everything that the demonstration starts inherits this.
MARK = f"UMO_DEMO_TEST={os.getpid()}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    run = subprocess.Popen(
        [sys.executable, "-m", "umo.demo", "--quick", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        env=dict([*os.environ.items(), MARK.split("=")]),
    )  # fmt: skip
    try:
        said, complained = run.communicate(timeout=280)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, said + complained
    # Other tests have segments of their own at the same time: the names of this run's carry its process id.
    owner = re.compile(rf"umo-(demo|prove)-{run.pid}\b")
    left = {name for name in os.listdir("/dev/shm") if owner.match(name)}
    return out, said, json.loads((out / "demo.json").read_text()), left


def rows(demo, **wanted):
    return [row for row in demo[2]["rows"] if all(row[key] == value for key, value in wanted.items())]


def test_demo_covers_every_model_transport_and_mode(demo):
    seen = {(row["model"], row["transport"], row["unified_memory"]) for row in demo[2]["rows"]}
    assert seen == {(m, t, u) for m in MODELS for t in ("shm", "HTTP", "gRPC") for u in ("off", "on")}
    assert all(row["verified_answers"] >= 3 and row["requests"] >= 3 for row in demo[2]["rows"])


def test_demo_leaves_nothing_behind(demo):
    assert demo[3] == set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        assert MARK.encode() not in environment, (process / "cmdline").read_bytes()


def test_demo_shows_the_meaning_and_the_picture(demo):
    assert demo[2]["nearest"][0]["sentence"].startswith("Grind the beans")
    assert (demo[0] / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "One request, unified memory off -> on" in demo[1]


@pytest.mark.parametrize("model", ["image_prep", "big_normalise"])
@pytest.mark.parametrize("transport", ["shm", "HTTP", "gRPC"])
def test_unified_memory_copies_nothing_of_floats_and_bytes(demo, model, transport):
    (on,) = rows(demo, model=model, transport=transport, unified_memory="on")
    (off,) = rows(demo, model=model, transport=transport, unified_memory="off")
    assert on["copied_bytes"]["umo"] == 0
    assert off["copied_bytes"]["umo"] >= off["output_bytes"]


def test_minilm_snapshots_its_indices_over_shared_memory_only(demo):
    (shared,) = rows(demo, model="minilm", transport="shm", unified_memory="on")
    assert shared["umo_copy_bytes_by_reason"] == {"in control_data": shared["input_bytes"]}
    for transport in ("HTTP", "gRPC"):
        (row,) = rows(demo, model="minilm", transport=transport, unified_memory="on")
        assert row["umo_copy_bytes_by_reason"] == {}


@pytest.mark.parametrize("transport", ["shm", "HTTP", "gRPC"])
def test_kernel_transfers_are_performed_off_and_eliminated_on(demo, transport):
    (off,) = rows(demo, model="image_prep", transport=transport, unified_memory="off")
    (on,) = rows(demo, model="image_prep", transport=transport, unified_memory="on")
    moved = {"host_to_device": off["input_bytes"], "device_to_host": off["output_bytes"]}
    assert off["transfer_bytes"] == {f"{way} performed": size for way, size in sorted(moved.items())}
    assert on["transfer_bytes"] == {f"{way} eliminated": size for way, size in sorted(moved.items())}
