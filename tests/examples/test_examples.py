"""Every example does what it says. (Those in C and C++ are ctest's: `ctest -R examples`.)"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import shared_memory as shm

from umo import example, paths
from umo.server import TritonServer, default_backend_directory

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
HEAVY = ROOT / "build" / "venv-heavy" / "bin" / "python"
# What each needs besides NumPy.
PYTHON = {
    "numpy_arrays": None,
    "torch_tensors": "torch",
    "tensorflow_tensors": "tensorflow",
    "jax_arrays": "jax",
}


def test_all_examples_in_python_are_run_here() -> None:
    assert {path.stem for path in (EXAMPLES / "python").glob("*.py")} == set(PYTHON)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if needs else []) for name, needs in PYTHON.items()]
)
def test_the_example_in_python_runs(name: str) -> None:
    needs = PYTHON[name]
    program = Path(sys.executable) if needs is None else HEAVY
    if needs is not None:
        if not HEAVY.exists():
            pytest.skip(
                "no build/venv-heavy: python -m venv build/venv-heavy, then pip install jax tensorflow-cpu torch"
            )
        if subprocess.run([HEAVY, "-c", f"import {needs}"], capture_output=True, check=False).returncode != 0:
            pytest.skip(f"build/venv-heavy has no {needs} that can be loaded")
    done = subprocess.run(
        [program, EXAMPLES / "python" / f"{name}.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "python"), "UMO_BUILD": str(paths.build())},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "0 copied" in done.stdout or "0 bytes copied" in done.stdout


def marked(path: Path) -> list[str]:
    """The design's own text in a source file."""
    return re.findall(r"// \[mission\n(.*?)\n *// mission\]", path.read_text(), re.S)


@pytest.mark.parametrize("name", ["allocate", "zero_copy"])
def test_the_designs_examples_are_as_they_are_written_there(name: str) -> None:
    """tests/cxx has all of them letter for letter; an example may not drift from it."""
    (text,) = marked(EXAMPLES / "cpp" / f"{name}.cc")
    assert text in marked(ROOT / "tests" / "cxx" / "mission_test.cc")


CONFIG = """backend: "umo_scale"
max_batch_size: 8
dynamic_batching {{ }}
input [ {{ name: "INPUT" data_type: {dtype} dims: [ -1 ] }} ]
output [ {{ name: "OUTPUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
parameters {{ key: "factor" value {{ string_value: "{factor}" }} }}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    if not (default_backend_directory() / "umo_scale").is_dir():
        pytest.fail("examples/backend is not built: make build")
    repository = tmp_path_factory.mktemp("models")
    example.write(repository)
    for name, dtype, factor in (("triple", "TYPE_FP32", "3"), ("word", "TYPE_FP32", "x"), ("whole", "TYPE_INT32", "1")):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG.format(dtype=dtype, factor=factor))
    with TritonServer(repository, allow_failing=True) as running:
        yield running


def counted(server: TritonServer) -> tuple[float, float]:
    """Bytes that umo copied for the model, for any reason, and that it did not have to."""
    metrics = server.metrics()
    return (
        metrics.value("umo_copy_bytes_total", model="triple"),
        metrics.value("umo_copy_avoided_bytes_total", model="triple"),
    )


def test_the_backend_in_c_computes_where_the_client_has_its_tensors(server: TritonServer) -> None:
    size = 1 << 20
    data = np.arange(size // 4, dtype=np.float32).reshape(1, -1)
    before = counted(server)
    region = shm.create_shared_memory_region("scale", "/umo-example-scale", 2 * size)
    try:
        with grpcclient.InferenceServerClient(server.grpc_url) as client:
            client.register_system_shared_memory("scale", "/umo-example-scale", 2 * size)
            shm.set_shared_memory_region(region, [data])
            tensor = grpcclient.InferInput("INPUT", list(data.shape), "FP32")
            tensor.set_shared_memory("scale", size)
            wanted = grpcclient.InferRequestedOutput("OUTPUT")
            wanted.set_shared_memory("scale", size, size)
            client.infer("triple", [tensor], outputs=[wanted])
            answer = shm.get_contents_as_numpy(region, np.float32, [size // 4], size)
            np.testing.assert_array_equal(answer, 3 * data[0])
            client.unregister_system_shared_memory("scale")
    finally:
        shm.destroy_shared_memory_region(region)
    after = counted(server)
    assert after[0] == before[0]
    # The answer: a single request's input lies in one piece whichever way, so nobody would have copied it.
    assert after[1] == before[1] + size


def test_the_backend_in_c_says_what_is_wrong_with_a_model(server: TritonServer) -> None:
    assert "parameter factor: 'x' is no number" in server.model_reason("word")
    assert "one input and one output, both TYPE_FP32" in server.model_reason("whole")


def test_the_client_asks_the_example_model(server: TritonServer) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "client" / "ask.py", server.http_url.removeprefix("http://")],
        env=os.environ | {"PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()[:2]] == ["setosa", "virginica"]
