"""The tests that name nodes, on machines that have some: those of ctest whose names have "numa" in them.

They run here too, on one node; what two nodes are, and what firmware says of a third, only such a machine shows. Each
of the three boots once, for all that is asked of it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("UMO_BUILD_DIR", ROOT / "build" / "release"))


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("numa_machine", Path(__file__).with_name("machine.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


machine = load()


@pytest.fixture(scope="module", autouse=True)
def there_is_one() -> None:
    try:
        machine.check()
    except machine.Missing as reason:
        pytest.skip(str(reason))


@functools.cache
def programs() -> dict[str, list[str]]:
    """Commands by the names of ctest's tests: programs that were built here, and no compilers or scripts."""
    listed = subprocess.run(
        ["ctest", "--test-dir", BUILD, "--show-only=json-v1"], capture_output=True, text=True, check=True
    )
    rows = [row for row in json.loads(listed.stdout)["tests"] if "command" in row]
    return {row["name"]: row["command"] for row in rows if BUILD in Path(row["command"][0]).parents}


def numa_tests() -> dict[str, list[str]]:
    return {name: command for name, command in programs().items() if "numa" in name}


def program(name: str) -> list[str]:
    found = programs()
    assert name in found, f"no {name} among the tests of {BUILD}"
    return found[name]


def cmocka(ran: object) -> str:
    """The output of a program of tests that all passed."""
    output, status = ran.output, ran.status  # type: ignore[attr-defined]
    assert status == 0, output
    passed = re.search(r"\[  PASSED  \] (\d+) test", output)
    assert passed is not None and int(passed[1]) > 0, output
    return str(output)


@pytest.fixture(scope="module")
def two() -> dict[str, object]:
    """Every test with two nodes, and one of them again where a cpuset leaves one node only."""
    named = numa_tests()
    kept = """
        mount -t cgroup2 none /sys/fs/cgroup && cd /sys/fs/cgroup && echo +cpuset > cgroup.subtree_control &&
        mkdir one && echo 1 > one/cpuset.mems && echo $$ > one/cgroup.procs && cd /tmp && exec "$0"
    """
    commands = [*named.values(), ["/bin/sh", "-c", kept, *program("os.linux_numa_test")]]
    return dict(zip([*named, "cpuset"], machine.run(commands, timeout_s=90, urgent=True), strict=True))


@pytest.mark.parametrize("name", sorted(numa_tests()) if BUILD.is_dir() else [])
def test_passes_on_two_nodes(two, name):
    cmocka(two[name])


def test_there_really_were_two_nodes(two):
    assert "\n2 nodes with memory" in cmocka(two["os.linux_numa_test"])
    said = cmocka(two["os.linux_numa_topology_test"])
    assert "\n2 nodes\n" in said
    assert re.search(r"^node 0: 1 processors, \d+ MiB, initiator 0", said, re.MULTILINE)
    assert re.search(r"^node 1: 1 processors, \d+ MiB, initiator 1", said, re.MULTILINE)


def test_a_cpuset_leaves_one_of_two(two):
    assert "\n1 nodes with memory" in cmocka(two["cpuset"])


def topology_only() -> list[str]:
    """The files of this machine, without those that are made up and broken."""
    return [*program("os.linux_numa_topology_test"), "this_machine_*"]


def test_firmware_tells_of_a_third_node_without_processors():
    topology, placing = machine.run([topology_only(), program("os.linux_numa_test")], kind="hmat")
    latency, bandwidth = machine.HMAT_FIGURES[1, 2]
    third = rf"^node 2: 0 processors, \d+ MiB, initiator 1, read {latency} ns {bandwidth} MB/s$"
    assert re.search(third, cmocka(topology), re.MULTILINE), topology.output
    assert "\n3 nodes with memory" in cmocka(placing)


def test_a_node_may_have_no_memory_and_a_kernel_be_older_than_ours():
    """The same machine for both: what asks most of a kernel's memory management runs on Debian's as well."""
    older = [program(name) for name in ("os.pages_test", "mem.heap_test")]
    topology, placing, *rest = machine.run([topology_only(), program("os.linux_numa_test"), *older], kind="bare")
    assert re.search(r"^node 1: 1 processors, 0 MiB, initiator 1", cmocka(topology), re.MULTILINE)
    assert "\n1 nodes with memory" in cmocka(placing)
    for ran in rest:
        cmocka(ran)


def test_a_command_has_its_own_status_and_output_and_one_that_does_not_end_is_ended():
    commands = [["/bin/sh", "-c", "echo 'a b'; exit 0"], ["/bin/false"], ["/bin/sh", "-c", "exit 77"]]
    yes, no, odd = machine.run(commands)
    assert (yes.output, yes.status) == ("a b\n", 0)
    assert no.status == 1 and odd.status == 77
    with pytest.raises(machine.TimeUp, match="not at its end after 3 s"):
        machine.run([["/bin/sleep", "1000"]], timeout_s=3)
