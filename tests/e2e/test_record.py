"""`umo record` on a real server: what is recorded is what was asked, and its numbers are the server's own trace's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as httpclient
from perfetto.protos.perfetto.trace import perfetto_trace_pb2

from umo import profile
from umo.models import onnx_graph, small
from umo.profile.triton import read_triton
from umo.server import TritonServer

REQUESTS = 20
CONFIG = """name: "{name}"
backend: "{backend}"
max_batch_size: 8
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[TritonServer]:
    models = folder / "models"
    (models / "same" / "1").mkdir(parents=True)
    (models / "same" / "config.pbtxt").write_text(
        CONFIG.format(name="same", backend="umo_identity", input="INPUT0", output="OUTPUT0")
    )
    graph = small.identity()
    names = graph.graph.input[0].name, graph.graph.output[0].name
    (models / "net" / "1").mkdir(parents=True)
    (models / "net" / "config.pbtxt").write_text(
        CONFIG.format(name="net", backend="umo_onnxruntime", input=names[0], output=names[1])
    )
    onnx_graph.save(graph, models / "net" / "1" / "model.onnx")
    settings = (f"triton,file={folder / 'trace.json'}", "triton,log-frequency=10", "level=TIMESTAMPS", "rate=1")
    trace = [f"--trace-config={setting}" for setting in (*settings, "mode=triton")]
    with TritonServer(models, extra_args=trace) as running:
        yield running


UMO = (sys.executable, "-m", "umo")


def umo(*arguments: str) -> None:
    subprocess.run([*UMO, *arguments], check=True, timeout=120)


def recorder(server: TritonServer, *options: str) -> subprocess.Popen[str]:
    command = [*UMO, "record", "--pid", str(server.pid), "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ask(server: TritonServer, model: str, count: int) -> None:
    client = httpclient.InferenceServerClient(server.http_url.removeprefix("http://"))
    config = client.get_model_config(model)
    name = config["input"][0]["name"]
    shape = [1, 64] if config["max_batch_size"] else [64]
    for number in range(count):
        tensor = httpclient.InferInput(name, shape, "FP32")
        tensor.set_data_from_numpy(np.full(shape, number, np.float32))
        answer = client.infer(model, [tensor]).as_numpy(config["output"][0]["name"])
        assert np.array_equal(answer, np.full(shape, number, np.float32))
    client.close()


def recorded(server: TritonServer, path: Path, *options: str, models: tuple[str, ...] = ("same", "net")) -> dict:
    """The summary of a recording during which each model was asked."""
    running = recorder(server, "-o", str(path), *options)
    deadline = time.monotonic() + 60
    while not looked_at(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    for model in models:
        ask(server, model, REQUESTS)
    time.sleep(0.2)
    running.terminate()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    return json.loads(out)


def looked_at(server: TritonServer) -> bool:
    """Whether somebody looks on: the head's count of them, at a place that src/trace/layout.h fixes."""
    folder = Path(f"/proc/{server.pid}/fd")
    for link in folder.iterdir():
        try:
            if "umo-recorder.0" in str(link.readlink()):
                return int.from_bytes(link.read_bytes()[256:260], "little") != 0
        except OSError:
            continue
    return False


def test_every_request_is_there_with_the_number_of_the_servers_trace(server: TritonServer, folder: Path) -> None:
    summary = recorded(server, folder / "all.umo")
    assert summary["lost"] == summary["gaps"] == 0
    assert not summary["ended"]
    read = profile.read(folder / "all.umo")
    assert len(read) == summary["events"]
    assert read.facts["pid"] == server.pid
    assert "tritonserver" in read.facts["command"]
    kinds = read.events["kind"]
    requests = read.events[kinds == profile.KINDS.index("request")]
    assert len(requests) == 2 * REQUESTS
    assert set(requests["size_bytes"].tolist()) == {256}
    assert {read.scopes[number] for number in requests["scope"].tolist()} == {"same", "net"}
    assert np.all(requests["duration_ns"] > 0)
    batches = read.events[kinds == profile.KINDS.index("batch")]
    assert sorted(batches["offset_bytes"].tolist()) == sorted(requests["offset_bytes"].tolist())
    # What a request cost lies between its batch's duration and its own.
    assert np.all(np.sort(batches["duration_ns"]) > 0)
    numbers = set(requests["fence_value"].tolist())
    assert len(numbers) == 2 * REQUESTS
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # the server writes its trace when it likes
        traced = read_triton(folder / "trace.json") if list(folder.glob("trace.json.*")) else {}
        if numbers <= set(traced):
            break
        time.sleep(0.2)
    assert numbers <= set(traced)
    by_number = dict(zip(requests["fence_value"].tolist(), requests, strict=True))
    for number in numbers:
        assert traced[number].model == read.scopes[int(by_number[number]["scope"])]
        # The same clock: a request here lies within the server's.
        end = int(read.facts["clock_ns"]) + int(by_number[number]["time_ns"])
        start = end - int(by_number[number]["duration_ns"])
        stages = {name: (first, last) for name, first, last in traced[number].stages()}
        assert stages["request"][0] <= start
        assert start <= stages["compute"][0] + 1_000_000


def test_both_traces_on_one_timeline(server: TritonServer, folder: Path) -> None:
    trace = folder / "trace.json"
    recorded(server, folder / "one.umo", models=("same",))
    for form in ("chrome", "perfetto"):
        command = ["record", "--from", str(folder / "one.umo"), "--format", form, "-o", str(folder / f"one.{form}")]
        umo(*command, "--triton-trace", str(trace))
    rows = json.loads((folder / "one.chrome").read_text())["traceEvents"]
    ours = {row["args"]["trace_id"] for row in rows if row.get("name") == "request" and row["ph"] == "X"}
    assert len(ours) == REQUESTS
    theirs = {row["args"]["trace_id"] for row in rows if row.get("name") == "compute" and row["ph"] == "X"}
    arrows = [row for row in rows if row["ph"] in "sf"]
    assert {row["id"] for row in arrows if row["ph"] == "s"} == theirs
    assert {row["id"] for row in arrows if row["ph"] == "f"} == ours == theirs
    packets = perfetto_trace_pb2.Trace.FromString((folder / "one.perfetto").read_bytes()).packet
    assert {flow for packet in packets for flow in packet.track_event.flow_ids} == ours
    assert {flow for packet in packets for flow in packet.track_event.terminating_flow_ids} == ours


def test_a_server_that_ends_ends_the_recording(folder: Path) -> None:
    models = folder / "models"
    with TritonServer(models) as server:
        running = recorder(server, "-o", str(folder / "end.csv"), "--format", "csv")
        deadline = time.monotonic() + 60
        while not looked_at(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        ask(server, "same", REQUESTS)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert json.loads(out)["ended"]
    read = profile.read(folder / "end.csv")
    assert int(np.sum(read.events["kind"] == profile.KINDS.index("request"))) == REQUESTS
