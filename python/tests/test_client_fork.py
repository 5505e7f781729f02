"""An HTTP client goes on in a process that was forked while it was open; tritonclient's hangs there."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import umo
import umo.client.http as http_client

WAIT_S = 20


class Live(http.server.BaseHTTPRequestHandler):
    """Answers that it lives, on connections that stay open; says in a header over which one."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append(self.client_address[1])  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Live) as running:
        running.daemon_threads = True
        running.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def child(work: Callable[[], bool]) -> int:
    """What became of a forked process that ran this."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(WAIT_S)
        status = 9
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def test_a_forked_process_goes_on_with_the_client(server: http.server.ThreadingHTTPServer) -> None:
    seen = server.seen  # type: ignore[attr-defined]
    url = f"127.0.0.1:{server.server_port}"
    client = http_client.InferenceServerClient(url, concurrency=2)
    closed = http_client.InferenceServerClient(url)
    closed.close()
    assert client.is_server_live()
    before = set(seen)

    def work() -> bool:
        live = [client.is_server_live() for _ in range(3)]
        inner = child(lambda: client.is_server_live())
        client.close()
        other = http_client.InferenceServerClient(url)
        return all(live) and inner == 0 and other.is_server_live()

    assert child(work) == 0
    assert len(seen) == 6
    assert before.isdisjoint(seen[1:]), "the connection is the parent's"
    assert client.is_server_live() and seen[-1] in before, "and it still has it"
    client.close()


def test_a_process_without_an_open_client_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client.gevent, "reinit", lambda: os._exit(3))
    client = http_client.InferenceServerClient("127.0.0.1:1")
    client.close()
    del client
    assert child(lambda: True) == 0


def test_it_holds_with_gevent_s_own_fork(server: http.server.ThreadingHTTPServer) -> None:
    code = (
        "from gevent import monkey; monkey.patch_all(); import os, sys, umo.client.http as http;"
        "client = http.InferenceServerClient(sys.argv[1]); live = [client.is_server_live()]; pid = os.fork();"
        "live.append(client.is_server_live());"
        "os._exit(0 if all(live) else 1) if pid == 0 else sys.exit(os.waitpid(pid, 0)[1] or not all(live))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(umo.__file__).parents[1])}
    url = f"127.0.0.1:{server.server_port}"
    assert subprocess.run([sys.executable, "-c", code, url], env=env, timeout=WAIT_S, check=False).returncode == 0
