"""Host policies of a real server (--host-policy): what it takes, what it refuses, and what the kit does then."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from umo.server import ServerError, TritonServer

# Models are called as their policies.
POLICIES = {
    "near": ("numa-node=0",),
    "cores": ("cpu-cores=0-0",),
    "both": ("numa-node=0", "cpu-cores=0-0"),
    "unnamed": (),
    "missing": ("numa-node=61",),
    "wrapped": ("numa-node=64",),
    "word": ("numa-node=first",),
    "tail": ("numa-node=0x",),
    "negative": ("numa-node=-1",),
    "range": ("cpu-cores=0",),
}
GOOD = ("near", "cores", "both", "unnamed", "off")
# Words of the server's own, and of umo where the server misreads a policy and goes on.
REFUSED = {
    "missing": "Unable to set NUMA memory policy: Invalid argument",
    "negative": "Unable to set NUMA memory policy: Invalid argument",
    "word": "Parsing 'numa-node' value: Can't parse 'first' to integer",
    "range": "host policy setting 'cpu-cores' format is '<lower_cpu_core_id>-<upper_cpu_core_id>'. Got 0",
    "wrapped": "host policy 'wrapped': numa-node=64 is no node of this machine; write one of 0",
    "tail": "host policy 'tail': numa-node=0x is no node's number; write one of 0",
}


def config(name: str, policy: str, unified: str = "") -> str:
    parameter = f"parameters {{ key: \"unified_memory\" value {{ string_value: '{unified}' }} }}\n" if unified else ""
    return (
        f'name: "{name}"\nbackend: "umo_identity"\n'
        'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        f'instance_group [ {{ kind: KIND_CPU count: 1 host_policy: "{policy}" }} ]\n{parameter}'
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    texts = {name: config(name, name) for name in POLICIES}
    texts["off"] = config("off", "wrapped", '{"enable_numa_optimization": false}')
    for name, text in texts.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text)
    given = [f"--host-policy={name},{setting}" for name, settings in POLICIES.items() for setting in settings]
    with TritonServer(repository, allow_failing=True, extra_args=given) as running:
        yield running


def infer(server: TritonServer, model: str) -> None:
    values = np.arange(1 << 18, dtype="f4")
    given = grpcclient.InferInput("INPUT0", [len(values)], "FP32")
    given.set_data_from_numpy(values)
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        assert (client.infer(model, [given]).as_numpy("OUTPUT0") == values).all()


def index(server: TritonServer) -> dict[str, tuple[str, str]]:
    """Each model's state and why."""
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        models = client.get_model_repository_index(as_json=True)["models"]
    return {model["name"]: (model.get("state", ""), model.get("reason", "")) for model in models}


@pytest.mark.parametrize("model", GOOD)
def test_a_policy_that_can_be_serves(server: TritonServer, model: str) -> None:
    infer(server, model)
    assert index(server)[model][0] == "READY"


@pytest.mark.parametrize("model", sorted(REFUSED))
def test_a_policy_that_cannot_be_is_a_load_error_in_words(server: TritonServer, model: str) -> None:
    state, reason = index(server)[model]
    assert state == "UNAVAILABLE"
    assert REFUSED[model] in reason


def policies_of(pid: int) -> list[str]:
    """The policies of memory, one a mapping, as each thread sees them."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "numa_maps").read_text().splitlines()
        found += [line.split()[1] for line in lines if len(line.split()) > 1]
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="this kernel knows no nodes (CONFIG_NUMA)")
def test_the_server_binds_an_instance_s_thread_and_umo_nothing_where_there_is_one_node(server: TritonServer) -> None:
    told = Path("/sys/devices/system/node/has_memory")
    if not told.exists():
        pytest.skip("no /sys: nobody says what nodes there are")
    nodes = told.read_text().strip()
    if not re.fullmatch(r"\d+", nodes):
        pytest.skip(f"this machine has the nodes {nodes}: tests/numa looks where memory is")
    infer(server, "near")
    found = policies_of(server.pid)
    assert f"bind:{nodes}" in found  # what the instance's own thread touches
    assert not any(policy.startswith("prefer") for policy in found)


def test_a_setting_that_is_none_ends_the_server(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="numa-node"):
        TritonServer(tmp_path, extra_args=["--host-policy=near,colour=red"]).start()
