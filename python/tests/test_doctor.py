"""`umo doctor`: it tries things itself, and whatever is not good comes with a remedy."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from umo import doctor
from umo.doctor import Finding, memory, serving, system

GIB = 1 << 30


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "umo", "doctor", *arguments],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, env={**os.environ, **environment},
    )  # fmt: skip


def named(findings, name):
    (found,) = [f for f in findings if f.name == name]
    return found


def test_here_everything_that_has_to_work_works():
    done = run("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = json.loads(done.stdout)["findings"]
    states = {f["name"]: f["state"] for f in findings}
    for name in ("library", "backends", "own views", "reads that cannot fault", "server", "ONNX Runtime", "client"):
        assert states[name] == "good", name
    assert all(f["mend"] for f in findings if f["state"] != "good")


def test_text_fits_80_columns_and_has_no_colour_in_a_pipe():
    done = run(UMO_TRITONSERVER="/nonexistent/tritonserver")
    assert done.returncode == 0  # a server is not everybody's
    assert "\x1b" not in done.stdout
    long = [line for line in done.stdout.splitlines() if len(line) > 80]
    assert all(" " not in line.strip() for line in long), long  # a path is never broken
    assert "none  server: UMO_TRITONSERVER names" in done.stdout


def test_a_finding_that_is_not_good_needs_a_remedy():
    with pytest.raises(ValueError, match="without a remedy"):
        Finding("a", "b", "fault", "c")


def test_a_check_that_breaks_does_not_end_the_others(monkeypatch):
    def breaks():
        raise RuntimeError("dry joint")
        yield

    monkeypatch.setattr(doctor, "checks", lambda: [breaks, system.pages])
    first, *others = doctor.examine()
    assert (first.state, first.name) == ("fault", "breaks") and "dry joint" in first.found and first.mend
    assert named(others, "page size").state == "good"


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"UMO_BUILD": "/nonexistent"}, "library not built"),
        ({"UMO_TRITONSERVER": "/bin/false"}, "/bin/false does not run"),
        ({"UMO_ONNXRUNTIME": "/bin/sh"}, "sh cannot be used"),
    ],
)
def test_what_does_not_work_is_a_fault(environment, text):
    done = run(**environment)
    assert done.returncode == 1
    assert "FAULT" in done.stdout and text in " ".join(done.stdout.split()) and "to mend:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variable", "check", "name"),
    [
        ("UMO_PROCMAP_QUERY", memory.views, "identity of mappings"),
        ("UMO_SIGBUS", memory.faults, "truncated memory"),
    ],
)
def test_what_is_switched_off_is_named(monkeypatch, variable, check, name):
    monkeypatch.setenv(variable, "off")
    found = named(list(check()), name)
    assert found.state == "note" and found.found == f"{variable}=off" and "unset" in found.mend


def test_little_or_no_room_for_shared_memory_is_said(monkeypatch, tmp_path):
    def room(free):
        return lambda _: SimpleNamespace(f_bavail=free, f_blocks=GIB, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", room(64 << 20))
    (found,) = memory.shared_memory()
    assert found.state == "note" and "--shm-size" in found.mend
    monkeypatch.setattr(os, "statvfs", room(GIB))
    (found,) = memory.shared_memory()
    assert found.state == "good"
    monkeypatch.setattr(memory, "SHM", tmp_path / "none")
    (found,) = memory.shared_memory()
    assert found.state == "fault" and "mount" in found.mend


def test_the_least_limit_of_all_groups_counts(monkeypatch):
    files = {
        "/proc/self/cgroup": "0::/a/b",
        "/sys/fs/cgroup/a/b/memory.max": "max",
        "/sys/fs/cgroup/a/memory.max": str(3 * GIB),
        "/proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 50 kB\n",
    }
    monkeypatch.setattr(system, "read", lambda path: files.get(str(path)))
    findings = list(system.memory())
    assert named(findings, "memory limit").found == "3.0 GiB"
    assert named(findings, "memory").state == "note"


NODES = {
    "/sys/devices/system/node/online": "0,2",
    "/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:  4194304 kB\nNode 0 MemFree: 5 kB",
    "/sys/devices/system/node/node0/cpulist": "0-3",
    "/sys/devices/system/node/node0/distance": "10 31",
    "/sys/devices/system/node/node2/meminfo": "Node 2 MemTotal:  0 kB",
    "/sys/devices/system/node/node2/cpulist": "",
    "/sys/devices/system/node/node2/distance": "31 10",
    "/proc/self/status": "Name:\tx\nMems_allowed_list:\t0-7\n",
    "/proc/sys/kernel/numa_balancing": "1",
}


def test_nodes_are_told_with_what_they_hold_and_how_far_they_are(monkeypatch):
    monkeypatch.setattr(system, "read", lambda path: NODES.get(str(path)))
    findings = list(system.nodes())
    assert named(findings, "NUMA nodes").found == "0: 4.0 GiB, processors 0-3; 2: no memory, no processors"
    assert named(findings, "NUMA distances").found == "0: 10 31; 2: 31 10"
    assert named(findings, "NUMA placement").found == "allowed"
    assert named(findings, "NUMA balancing").found == "on"
    assert all(found.name != "NUMA nodes allowed" for found in findings)


def test_a_cpuset_that_leaves_nodes_out_is_told(monkeypatch):
    files = {**NODES, "/proc/self/status": "Name:\tx\nMems_allowed_list:\t2\n", "/proc/sys/kernel/numa_balancing": "0"}
    monkeypatch.setattr(system, "read", lambda path: files.get(str(path)))
    findings = list(system.nodes())
    assert named(findings, "NUMA nodes allowed").found == "2"
    assert named(findings, "NUMA balancing").found == "off"
    assert all(found.name != "NUMA placement" for found in findings)


def test_memory_that_cannot_be_placed_comes_with_the_reason_and_a_remedy():
    found = system._placing(999)
    assert found.state == "note" and "no node 999 here" in found.found and "SYS_NICE" in found.mend


def test_one_node_is_one_line(monkeypatch):
    files = {**NODES, "/sys/devices/system/node/online": "0"}
    monkeypatch.setattr(system, "read", lambda path: files.get(str(path)))
    assert [found.name for found in system.nodes()] == ["NUMA nodes"]
    for nothing in (None, "", "0-", "x", "0;1"):
        monkeypatch.setattr(system, "read", lambda path, text=nothing: text)
        assert list(system.nodes()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, []), ("", []), ("0", [0]), ("0-2,5", [0, 1, 2, 5]), ("1,", []), ("-1", []), ("2-1", [])],
)
def test_lists_of_numbers_are_read_as_the_kernel_writes_them(text, found):
    assert system.numbers(text) == found


def test_mixed_installations_are_a_fault(monkeypatch):
    monkeypatch.setattr("umo.__version__", "9.9.9")
    (found,) = serving.library()
    assert found.state == "fault" and "9.9.9" in found.found
