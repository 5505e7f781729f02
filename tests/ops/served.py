"""A real server whose models do all that umo's metrics tell: one for a whole test file, since a start takes seconds."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from umo.server import TritonServer

ROOT = Path(__file__).resolve().parents[2]
KERNEL = """
__kernel void twice(__global const float *in, __global float *out)
{
    size_t i = get_global_id(0);
    out[i] = 2.0f * in[i];
}
"""
KERNEL_PLAN = {
    "function": "twice",
    "arguments": [{"input": "INPUT0"}, {"output": "OUTPUT0"}],
    "global_size": ["INPUT0[0]"],
    "outputs": {"OUTPUT0": ["INPUT0[0]"]},
}
COUNT = 1 << 18


def promtool() -> str | None:
    """UMO_PROMTOOL, else what scripts/setup put beside Python, else promtool on PATH."""
    beside = Path(sys.executable).parent / "promtool"
    return os.environ.get("UMO_PROMTOOL") or (str(beside) if beside.exists() else shutil.which("promtool"))


def config(name: str, backend: str, parameters: dict[str, Any]) -> str:
    texts = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(json.dumps(value))} }} }}\n'
        for key, value in parameters.items()
    )
    return (
        f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: 0\n'
        'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        f"instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n{texts}"
    )


def repository(folder: Path) -> Path:
    for name, backend, parameters in (
        ("shared", "umo_identity", {}),
        ("off", "umo_identity", {"unified_memory": {"enable": False}}),
        ("kernel", "umo_kernel", {"kernel": KERNEL_PLAN}),
        ("kernel_off", "umo_kernel", {"kernel": KERNEL_PLAN, "unified_memory": {"enable": False}}),
    ):
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(config(name, backend, parameters))
        if backend == "umo_kernel":
            (version / "model.cl").write_text(KERNEL)
    return folder


def infer(server: TritonServer, model: str, times: int = 1) -> None:
    """Requests over HTTP: their bytes are in the server's memory."""
    client = httpclient.InferenceServerClient(server.http_url)
    data = np.arange(COUNT, dtype=np.float32)
    given = httpclient.InferInput("INPUT0", [COUNT], "FP32")
    given.set_data_from_numpy(data)
    for _ in range(times):
        answer = client.infer(model, [given]).as_numpy("OUTPUT0")
        assert answer is not None and answer[5] in (5.0, 10.0)
    client.close()


def infer_shared(server: TritonServer, model: str, times: int = 1) -> None:
    """Requests whose bytes are in one region of system shared memory, which is registered for all of them."""
    client = httpclient.InferenceServerClient(server.http_url)
    name, size = f"umo-ops-{os.getpid()}", COUNT * 4
    region = shm.create_shared_memory_region(name, f"/{name}", 2 * size)
    try:
        shm.set_shared_memory_region(region, [np.arange(COUNT, dtype=np.float32)])
        client.register_system_shared_memory(name, f"/{name}", 2 * size)
        given = httpclient.InferInput("INPUT0", [COUNT], "FP32")
        given.set_shared_memory(name, size)
        wanted = httpclient.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory(name, size, offset=size)
        for _ in range(times):
            client.infer(model, [given], outputs=[wanted])
            answer = shm.get_contents_as_numpy(region, np.float32, [COUNT], offset=size)
            assert answer[5] in (5.0, 10.0)
        for attempt in range(100):  # the server lets go of it a moment after its answer
            try:
                client.unregister_system_shared_memory(name)
                break
            except InferenceServerException:
                time.sleep(0.01 * attempt)
    finally:
        shm.destroy_shared_memory_region(region)
        client.close()


def start(folder: Path) -> TritonServer:
    return TritonServer(
        repository(folder),
        explicit=True,
        load_models=["shared", "off", "kernel", "kernel_off"],
        backend_config={name: {"budget_bytes": str(1 << 30)} for name in ("umo_identity", "umo_kernel")},
    )


def work(server: TritonServer) -> None:
    for model in ("shared", "off", "kernel", "kernel_off"):
        infer(server, model, 2)
        infer_shared(server, model, 3)


def scrape(server: TritonServer) -> str:
    """/metrics, after the look that follows the last request."""
    from urllib.request import urlopen

    time.sleep(1.3)
    with urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
