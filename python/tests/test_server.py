"""The launcher: a real server starts, says why when it cannot, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from umo import server as under_test
from umo.server import ServerError, TritonServer, find_tritonserver, parse_metrics, server_options


@pytest.fixture
def empty(tmp_path: Path) -> dict[str, Path]:
    """A repository without models and a folder without backends."""
    (tmp_path / "models").mkdir()
    (tmp_path / "backends").mkdir()
    return {"model_repository": tmp_path / "models", "backend_directory": tmp_path / "backends"}


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def add_model(repository: Path, name: str, backend: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(f'backend: "{backend}"\n')


def test_server_starts_and_stops_cleanly(empty):
    with TritonServer(**empty, explicit=True) as server:
        pid, log = server.pid, server.log_path
        assert server.running
        assert server.index() == []
        assert server.metrics().samples == [] or server.metrics().samples
    assert wait_gone(pid)
    assert not log.exists()


def test_a_server_elsewhere_is_asked_there(empty):
    away = ["--http-address=127.0.0.2", "--metrics-address=127.0.0.3", "--grpc-address=127.0.0.4"]
    with TritonServer(**empty, explicit=True, extra_args=away) as server:
        assert server.index() == []
        assert isinstance(server.metrics().samples, list)
        assert server.http_url == f"127.0.0.2:{server.http_port}"
        assert server.metrics_url == f"127.0.0.3:{server.metrics_port}"
        assert server.grpc_url == f"127.0.0.4:{server.grpc_port}"
        with socket.create_connection(("127.0.0.4", server.grpc_port), timeout=5):
            pass


def test_a_server_without_metrics_is_ready_without_them(empty):
    with TritonServer(**empty, explicit=True, extra_args=["--allow-metrics=false"]) as server:
        assert server.index() == []
        with pytest.raises(OSError):
            server.metrics()


@pytest.mark.parametrize(
    ("address", "url"),
    [("127.0.0.1", "127.0.0.1:1"), ("0.0.0.0", "127.0.0.1:1"), ("[::]", "127.0.0.1:1"), ("::1", "[::1]:1")],
)
def test_where_a_server_is_reached(address, url):
    assert under_test._url(under_test._reachable(address), 1) == url


def test_unknown_option_of_another_version_is_not_passed(empty):
    known = server_options(find_tritonserver())
    command = TritonServer(**empty)._command()
    passed = {argument.split("=")[0] for argument in command if argument.startswith("--")}
    assert passed <= known
    assert ("--allow-client-shm" in passed) == ("--allow-client-shm" in known)


def test_failing_model_is_named_with_its_reason(empty):
    add_model(empty["model_repository"], "broken", "no_such_backend")
    server = TritonServer(**empty)
    with pytest.raises(ServerError, match=r"failed to load 'broken'.*no_such_backend"):
        server.start()
    assert not server.running
    server.log_path.unlink()


def test_failing_model_is_allowed_on_request(empty):
    add_model(empty["model_repository"], "broken", "no_such_backend")
    with TritonServer(**empty, allow_failing=True) as server:
        assert server.model_state("broken") == "UNAVAILABLE"
        assert "no_such_backend" in server.model_reason("broken")


def test_load_of_an_unknown_model_raises(empty):
    with (
        TritonServer(**empty, explicit=True) as server,
        pytest.raises(ServerError, match="load of model absent"),
    ):
        server.load("absent")


def test_taken_port_is_replaced(empty, monkeypatch):
    with socket.socket() as taken:
        taken.bind((under_test.HOST, 0))
        taken.listen()
        free_ports, calls = under_test.free_ports, []

        def first_is_taken(count: int) -> list[int]:
            ports = free_ports(count)
            calls.append(ports)
            return [taken.getsockname()[1], *ports[1:]] if len(calls) == 1 else ports

        monkeypatch.setattr(under_test, "free_ports", first_is_taken)
        with TritonServer(**empty, explicit=True) as server:
            assert len(calls) == 2
            assert server.http_port == calls[1][0]


def test_environment_reaches_the_server_alone(empty):
    with TritonServer(**empty, explicit=True, env={"UMO_TEST_MARK": "yes", "HOME": None}) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    assert b"UMO_TEST_MARK=yes" in environment
    assert not [entry for entry in environment if entry.startswith(b"HOME=")]
    assert "UMO_TEST_MARK" not in os.environ


def test_killed_parent_takes_the_server_with_it(empty):
    program = (
        "import sys, time; from umo.server import TritonServer\n"
        "s = TritonServer(sys.argv[1], backend_directory=sys.argv[2], explicit=True); s.start()\n"
        "print(s.pid, flush=True); time.sleep(60)"
    )
    arguments = [str(empty["model_repository"]), str(empty["backend_directory"])]
    parent = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_gone(pid)


def test_server_outlives_the_thread_that_started_it(empty):
    import threading

    server = TritonServer(**empty, explicit=True)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    time.sleep(0.2)
    try:
        assert server.running
    finally:
        assert server.stop() == 0


def test_metrics_text_is_read():
    metrics = parse_metrics(
        "# HELP a b\n# TYPE a counter\n"
        'a{model="m\\"x\\n",direction="in"} 3\na{model="other",direction="in"} 4.5\nplain 1e3\n'
        'b_bucket{le="+Inf"} NaN\n'
    )
    assert metrics.value("a", direction="in") == 7.5
    assert metrics.value("a", model='m"x\n') == 3
    assert metrics.value("plain") == 1000
    assert metrics.value("absent") == 0
    later = parse_metrics('a{model="other",direction="in"} 10\nnew 2\n').since(metrics)
    assert (later.value("a"), later.value("new")) == (5.5, 2)
    with pytest.raises(ValueError, match="not a line"):
        parse_metrics("}{\n")
