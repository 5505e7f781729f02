"""`umo serve` and the `unified_memory` settings behind the real server: what is written has its effect."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from umo.models.onnx_graph import FLOAT, Graph, save
from umo.server import Metrics, TritonServer, parse_metrics

ROWS = json.loads((Path(__file__).parents[2] / "python" / "tests" / "unified_rows.json").read_text())

# As the design writes it.
MISSION = """{
    "name": "my_model",
    "backend": "pytorch",
    "optimization": {
        "unified_memory": {
            "enable": true,
            "batch_optimization": true,
            "zero_copy_threshold": 1048576,
            "tensor_patterns": [
                {"name": "input", "pattern": "cpu_dominant"},
                {"name": "output", "pattern": "gpu_dominant"},
                {"name": "weights", "pattern": "gpu_dominant"}
            ]
        }
    }
}
"""
IDENTITY = """
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
DOUBLE = """__kernel void twice(__global const float *in, __global float *out)
{
    out[get_global_id(0)] = 2 * in[get_global_id(0)];
}
"""
KERNEL = {
    "function": "twice",
    "arguments": [{"input": "INPUT0"}, {"output": "OUTPUT0"}],
    "global_size": ["INPUT0[0]"],
    "outputs": {"OUTPUT0": ["INPUT0[0]"]},
}


def add(repository: Path, name: str, config: str, file: str = "config.pbtxt") -> Path:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / file).write_text(config)
    return repository / name


def add_mission(repository: Path) -> None:
    folder = add(repository, "my_model", MISSION, "config.json")
    graph = Graph("my_model")
    graph.input("input", FLOAT, ["batch", 16])
    graph.op("Relu", "input", to="output")
    graph.output("output", FLOAT, ["batch", 16])
    save(graph.model(), folder / "1" / "model.onnx")


def add_kernel(repository: Path, name: str, optimization: str) -> None:
    text = f'backend: "umo_kernel"\n{IDENTITY}{optimization}\n'
    text += f'parameters {{ key: "kernel" value {{ string_value: {json.dumps(json.dumps(KERNEL))} }} }}\n'
    (add(repository, name, text) / "1" / "model.cl").write_text(DOUBLE)


class Serve:
    """`umo serve` as a process of its own."""

    def __init__(self, folder: Path, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
        self.log_path = folder / f"serve-{os.urandom(4).hex()}.log"
        self.out_path = self.log_path.with_suffix(".out")
        self.place = folder / "overlays"
        self.place.mkdir(exist_ok=True)
        with self.log_path.open("wb") as log, self.out_path.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "umo", "serve", *map(str, arguments)],
                stdout=out,
                stderr=log,
                env={**os.environ, "XDG_RUNTIME_DIR": str(self.place), **(environment or {})},
                start_new_session=True,
            )
        self.said: dict[str, Any] = {}

    def ready(self, timeout_s: float = 60) -> Serve:
        deadline = time.monotonic() + timeout_s
        while not self.said:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not ready ({self.process.poll()}):\n{self.log()[-3000:]}")
            lines = [line for line in self.out_path.read_text().splitlines() if line.startswith("{")]
            if lines:
                self.said = json.loads(lines[0])
            time.sleep(0.02)
        return self

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 40) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def metrics(self) -> Metrics:
        import urllib.request

        with urllib.request.urlopen(f"http://{self.said['metrics']}") as answer:
            return parse_metrics(answer.read().decode())

    def states(self) -> dict[str, str]:
        with httpclient.InferenceServerClient(self.said["http"]) as client:
            return {entry["name"]: entry.get("state", "") for entry in client.get_model_repository_index()}

    def ask(self, model: str, values: np.ndarray, name: str = "INPUT0", output: str = "OUTPUT0") -> np.ndarray:
        with httpclient.InferenceServerClient(self.said["http"]) as client:
            given = httpclient.InferInput(name, list(values.shape), "FP32")
            given.set_data_from_numpy(values)
            return client.infer(model, [given]).as_numpy(output)


def wait_for(what: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def gone(serve: Serve, model: str) -> bool:
    try:
        return serve.states().get(model) in (None, "UNAVAILABLE")
    except InferenceServerException:
        return False  # the server lists its folders and looks at each afterwards: one went in between


PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
OFF = "optimization { unified_memory { enable: false } }"
SLOT = """optimization { execution_accelerators { cpu_execution_accelerator [ { name: "unified_memory"
  parameters { key: "enable" value: "false" } parameters { key: "zero_copy_threshold" value: "77" } } ] } }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("serve")
    models = folder / "models"
    add_mission(models)
    add(models, "plain", f'backend: "umo_identity"\n{IDENTITY}')
    add(models, "off", f'backend: "umo_identity"\n{IDENTITY}{OFF}\n')
    add(models, "slot", f'backend: "umo_identity"\n{IDENTITY}{SLOT}')
    add_kernel(models, "kernel_default", "")
    add_kernel(models, "kernel_own", "optimization { unified_memory { zero_copy_threshold: 65536 } }")
    serve = Serve(
        folder, models, *PORTS, "--json", "--backend", "pytorch=umo_onnxruntime", "--",
        "--model-control-mode=poll", "--repository-poll-secs=1",
        '--backend-config=umo_kernel,unified_memory={"zero_copy_threshold": 0, "trusted_clients": true}',
        "--backend-config=umo_kernel,unified_memory.trusted_clients=false",
    )  # fmt: skip
    try:
        yield serve.ready()
    finally:
        serve.end()


def test_the_missions_example_is_served_as_it_is_written(served: Serve) -> None:
    values = np.random.default_rng(1).standard_normal((3, 16)).astype("f4")
    assert (served.ask("my_model", values, "input", "output") == np.maximum(values, 0)).all()
    line = next(line for line in served.log().splitlines() if "my_model: unified_memory:" in line)
    assert "enable=true batch_optimization=true trusted_clients=false profiling=false" in line
    assert "zero_copy_threshold=1048576" in line
    assert "input=cpu_dominant output=gpu_dominant weights=gpu_dominant" in line
    told = {model["model"]: model for model in served.said["models"]}
    assert told["my_model"]["backend"] == "umo_onnxruntime" and told["my_model"]["unified_memory"] is True
    assert told["my_model"]["settings"] == json.loads(MISSION)["optimization"]["unified_memory"]
    assert told["off"]["unified_memory"] is False


def test_off_is_off_and_on_is_on(served: Serve) -> None:
    before = served.metrics()
    values = np.arange(100_000, dtype="f4")
    for model in ("plain", "off", "slot"):
        assert (served.ask(model, values) == values).all()
    moved = served.metrics().since(before)
    for model in ("off", "slot"):
        assert moved.value("umo_copy_bytes_total", model=model, reason="disabled") >= values.nbytes
    assert moved.value("umo_copy_bytes_total", model="plain", reason="disabled") == 0


def test_a_model_s_threshold_comes_over_the_operator_s(served: Serve) -> None:
    before = served.metrics()
    for model in ("kernel_default", "kernel_own"):
        small = np.arange(8192, dtype="f4")
        assert (served.ask(model, small) == 2 * small).all()
    moved = served.metrics().since(before)
    # 32 KiB is below the model's own 64 KiB, and above the operator's 0.
    assert moved.value("umo_copy_bytes_total", model="kernel_own", reason="below_threshold") >= small.nbytes
    assert moved.value("umo_copy_bytes_total", model="kernel_default", reason="below_threshold") == 0
    for model, threshold in (("kernel_default", 0), ("kernel_own", 65536)):
        line = next(line for line in served.log().splitlines() if f"{model}: unified_memory:" in line)
        assert re.search(rf"trusted_clients=false .*zero_copy_threshold={threshold}\b", line), line


def test_it_listens_on_this_machine_alone(served: Serve) -> None:
    ports = {int(served.said[what].split("/")[0].split(":")[1]) for what in ("http", "grpc", "metrics")}
    listening = set()
    for table, mapped in (("tcp", ""), ("tcp6", "0000000000000000FFFF0000")):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            (address, _, port), state = row.split()[1].partition(":"), row.split()[3]
            if state == "0A" and int(port, 16) in ports:
                local = address.startswith(mapped) and address[len(mapped) :] == "0100007F"
                listening.add((int(port, 16), local))
    assert listening == {(port, True) for port in ports}


def test_changes_of_the_source_appear(served: Serve) -> None:
    models = next(served.log_path.parent.glob("models"))
    add(models, "later", MISSION.replace("my_model", "later").replace("pytorch", "umo_identity"), "config.json")
    (models / "later" / "config.json").unlink()
    (models / "later" / "config.pbtxt").write_text(f'backend: "umo_identity"\n{IDENTITY}{OFF}\n')
    wait_for(lambda: served.states().get("later") == "READY")
    values = np.arange(1000, dtype="f4")
    assert (served.ask("later", values) == values).all()
    assert served.metrics().value("umo_copy_bytes_total", model="later", reason="disabled") > 0
    (models / "later" / "config.pbtxt").write_text(f'backend: "umo_identity"\n{IDENTITY}')
    wait_for(lambda: served.log().count("later: unified_memory: enable=true") == 1)
    (models / "later" / "config.pbtxt").write_text("optimization { unified_memory { enabel: true } }")
    wait_for(lambda: "did you mean enable?" in served.log())
    assert (served.ask("later", values) == values).all(), "a bad configuration leaves the model as it was"
    shutil.rmtree(models / "later")
    wait_for(lambda: gone(served, "later"))


CLIENT = """
import os, signal, sys
import numpy as np
import umo.client.http as httpclient

client = httpclient.InferenceServerClient(sys.argv[1])
values = np.arange(1 << 18, dtype="f4")
for _ in range(4):
    given = httpclient.InferInput("INPUT0", [values.size], "FP32")
    given.set_data_from_numpy(values)
    client.infer("plain", [given])
print([region["name"] for region in client.get_system_shared_memory_status()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_dead_client_left_is_unregistered(served: Serve) -> None:
    said = subprocess.run(
        [sys.executable, "-c", CLIENT, served.said["http"]], capture_output=True, text=True, check=False
    )
    assert said.returncode == -signal.SIGKILL and "'" in said.stdout, said.stderr

    def none_left() -> bool:
        with httpclient.InferenceServerClient(served.said["http"]) as client:
            return not client.get_system_shared_memory_status()

    wait_for(none_left)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    add(tmp_path / "models", "off", f'backend: "umo_identity"\n{IDENTITY}{OFF}\n')
    return tmp_path / "models"


def test_signals_end_it_cleanly(models: Path, tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        serve = Serve(tmp_path, models, *PORTS, "--json").ready()
        pid = serve.said["pid"]
        assert len(list(serve.place.iterdir())) == 1
        assert serve.end(number) == 0
        assert list(serve.place.iterdir()) == [] and not Path(f"/proc/{pid}").exists()


def test_a_signal_before_it_is_ready_ends_it_too(models: Path, tmp_path: Path) -> None:
    serve = Serve(tmp_path, models, *PORTS, "--json")
    wait_for(lambda: bool(list(serve.place.iterdir())))
    assert serve.end(signal.SIGHUP) in (0, 128 + signal.SIGHUP), serve.log()
    assert list(serve.place.iterdir()) == [] and "Traceback" not in serve.log()


def test_a_killed_one_takes_its_server_along_and_the_next_one_cleans_up(models: Path, tmp_path: Path) -> None:
    serve = Serve(tmp_path, models, *PORTS, "--json").ready()
    pid = serve.said["pid"]
    assert serve.end(signal.SIGKILL) == -signal.SIGKILL
    left = list(serve.place.iterdir())
    assert len(left) == 1
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    second = Serve(tmp_path, models, *PORTS, "--json").ready()
    try:
        assert not left[0].exists()
        os.kill(second.said["pid"], signal.SIGKILL)
        assert second.process.wait(20) == 128 + signal.SIGKILL, "the server's end is ours"
        assert list(second.place.iterdir()) == []
    finally:
        second.end()


def test_what_cannot_be_served_is_said(models: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    add(tmp_path / "bad", "bad", "optimization { unified_memory { enabel: true } }")
    add(tmp_path / "unloadable", "one", f'backend: "no_such"\n{IDENTITY}')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, status, words in (
            ([tmp_path / "none"], 2, "no model repository"),
            ([models / "off"], 2, "is one model; give the folder that it is in"),
            ([], 2, "missing argument"),
            ([tmp_path / "empty", *PORTS], 2, "umo example"),
            ([models, "--", "--log-verbose"], 2, "write --NAME=VALUE"),
            ([models, "--", "--model-repository=/x"], 2, "--model-repository"),
            ([models, "--", "--http-port=many"], 2, "a port is a number"),
            ([models, "--", "--http-port=70000"], 2, "no port 70000"),
            ([models, *PORTS, "--http-port", "9", "--grpc-port", "9"], 3, "are both 9"),
            ([models, *PORTS, "--", "--http-address=192.0.2.1"], 3, "no address of this machine"),
            ([models, *PORTS, "--backend", "x"], 2, "write OLD=NEW"),
            (
                [tmp_path / "bad", *PORTS],
                1,
                "bad/config.pbtxt:1: error: optimization.unified_memory has no field 'enabel'",
            ),
            ([tmp_path / "unloadable", *PORTS], 3, "ended with 1 before it was ready"),
            ([models, *PORTS, "--http-port", str(port)], 3, f"taken by process {os.getpid()} ("),
            ([models, *PORTS, "--", "--htpp-port=1"], 2, "has no option --htpp-port; is it --http-port?"),
        ):
            serve = Serve(tmp_path, *arguments)
            assert serve.process.wait(60) == status, (arguments, serve.log())
            assert words in serve.log(), (arguments, serve.log())
            assert "Traceback" not in serve.log()
            last = serve.log().splitlines()[-1]
            assert last.startswith("umo: ") or "(what it said is above)" in last, last
            assert list(serve.place.iterdir()) == []


def test_without_a_server_the_remedy_is_said(models: Path, tmp_path: Path) -> None:
    serve = Serve(tmp_path, models, *PORTS, environment={"UMO_TRITONSERVER": "/nonexistent"})
    assert serve.process.wait(30) == 3
    assert "UMO_TRITONSERVER names /nonexistent" in serve.log() and "Traceback" not in serve.log()


class Terminal:
    """`umo serve` on a terminal of its own, as a person starts it."""

    def __init__(self, folder: Path, *arguments: str | Path, columns: int = 80, **environment: str) -> None:
        self.said = b""
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm-256color", "XDG_RUNTIME_DIR": str(folder), **environment})
            os.execv(sys.executable, [sys.executable, "-m", "umo", "serve", *map(str, arguments)])
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read_until(self, text: bytes, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.said:
            assert time.monotonic() < deadline, self.said[-2000:]
            if not select.select([self._file], [], [], 0.1)[0]:
                continue
            try:
                self.said += os.read(self._file, 65536)
            except OSError:
                raise AssertionError(f"it ended: {self.said[-2000:]!r}") from None

    def interrupt(self) -> None:
        os.write(self._file, b"\x03")

    def end(self, timeout_s: float = 60) -> int:
        deadline = time.monotonic() + timeout_s
        while True:
            if select.select([self._file], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self.said += os.read(self._file, 65536)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self._file)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it does not end: {self.said[-2000:]!r}")


def servers_of(place: Path) -> list[str]:
    """The servers whose models lie in an overlay of that place."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(place).encode() in line.read_bytes() and b"tritonserver" in line.read_bytes():
                found.append(line.parent.name)
    return found


def test_a_terminal_shows_its_health_and_ctrl_c_ends_it(models: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    terminal = Terminal(place, models, *PORTS)
    terminal.read_until(b"loading")
    terminal.read_until(b"0 requests/s")
    assert b"ready: http 127.0.0.1:" in terminal.said and len(servers_of(place)) == 1
    terminal.interrupt()
    assert terminal.end() == 0
    assert b"Ctrl-C again" in terminal.said and b"Traceback" not in terminal.said
    assert list(place.iterdir()) == [] and servers_of(place) == []


@pytest.mark.parametrize("moment", [b"loading", b"I1", b"Started GRPC"])
def test_ctrl_c_while_it_loads_ends_it_soon(models: Path, tmp_path: Path, moment: bytes) -> None:
    place = tmp_path / "place"
    place.mkdir()
    terminal = Terminal(place, models, *PORTS)
    terminal.read_until(moment)
    terminal.interrupt()
    # The signal may find it ready already: then it is the server that ends.
    assert terminal.end(30) in (0, 130), terminal.said
    assert b"Traceback" not in terminal.said and b"KeyboardInterrupt" not in terminal.said
    assert list(place.iterdir()) == [] and servers_of(place) == []


def test_a_second_ctrl_c_does_not_wait(models: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    terminal = Terminal(place, models, *PORTS)
    terminal.read_until(b"0 requests/s")
    os.kill(int(servers_of(place)[0]), signal.SIGSTOP)  # one that would take for ever
    terminal.interrupt()
    terminal.read_until(b"Ctrl-C again")
    terminal.interrupt()
    assert terminal.end(20) == 128 + signal.SIGKILL
    assert list(place.iterdir()) == [] and servers_of(place) == []


def test_without_colour_there_is_none(models: Path, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, models, *PORTS, NO_COLOR="1")
    terminal.read_until(b"ready: http")
    terminal.interrupt()
    assert terminal.end() in (0, 130)
    assert not re.search(rb"\x1b\[(3[0-7]|9[0-7]|38)", terminal.said)


def test_the_kit_and_the_checker_judge_alike() -> None:
    """Every row that python/tests/test_config.py judges, judged by a server."""
    with tempfile.TemporaryDirectory() as folder:
        for index, (text, _) in enumerate(ROWS):
            value = json.dumps(text)
            parameter = f'parameters {{ key: "unified_memory" value {{ string_value: {value} }} }}\n'
            add(Path(folder), f"row{index:02}", f'backend: "umo_identity"\n{IDENTITY}{parameter}')
        with TritonServer(folder, allow_failing=True) as server:
            index_of = {entry["name"]: entry for entry in server.index()}
            for index, (text, wrong) in enumerate(ROWS):
                entry = index_of[f"row{index:02}"]
                if wrong is None:
                    assert entry["state"] == "READY", (text, entry)
                else:
                    assert entry["state"] == "UNAVAILABLE", (text, entry)
                    assert any(part in entry["reason"] for part in wrong.split("|")), (text, entry["reason"])
