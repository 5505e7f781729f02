"""umo top's readings of a URL: what is right, and everything that can be wrong with an answer."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from umo.top.scrape import FAMILIES, Scrape, reading_of, url_of
from umo.top.source import ModelKey, SourceError

TEXT = """\
# HELP nv_inference_request_success Number of successful requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="bert",version="1"} 12
# HELP umo_copy_bytes_total Bytes copied
# TYPE umo_copy_bytes_total counter
umo_copy_bytes_total{backend="umo_onnxruntime",direction="in",model="bert",reason="scattered",version="1"} 1000
umo_copy_bytes_total{backend="umo_kernel",direction="in",model="bert",reason="scattered",version="1"} 24
umo_copy_bytes_total{backend="umo_kernel",direction="out",model="bert",reason="limit",version="2"} 7
# HELP umo_live_bytes Memory
# TYPE umo_live_bytes gauge
umo_live_bytes{backend="umo_onnxruntime",model="bert",version="1"} 5e+06
umo_live_bytes{backend="umo_onnxruntime",model="bad",version="1"} NaN
# HELP umo_ready 1, or 0
# TYPE umo_ready gauge
umo_ready{model="bert",version="1"} 1
umo_ready{model="bert",version="2"} 0
# HELP umo_pressure_level level
# TYPE umo_pressure_level gauge
umo_pressure_level{model="bert",version="1"} 1
umo_pressure_level{model="bert",version="2"} 2
# TYPE umo_something_new gauge
umo_something_new{model="bert"} 3
"""


def test_a_server_s_text_is_a_reading() -> None:
    reading = reading_of(TEXT, 5.0)
    assert set(reading.models) == {ModelKey("bert", "1"), ModelKey("bert", "2")}
    bert = reading.models[ModelKey("bert", "1")]
    assert bert.counters == {("copied", "scattered", "in"): 1024.0}  # of both backends
    assert bert.gauges == {("live",): 5e6}
    assert reading.models[ModelKey("bert", "2")].counters == {("copied", "limit", "out"): 7.0}
    # Of the process: the worst that is said of it.
    assert reading.process.gauges == {("ready",): 0.0, ("level",): 2.0}


def test_metrics_without_umo_are_a_reading_without_models() -> None:
    other = TEXT[: TEXT.index("# HELP umo_copy")]
    assert reading_of(other, 0.0).models == {}
    assert reading_of("", 0.0).models == {}


@pytest.mark.parametrize(
    "text",
    [
        "<html><body>umo_x</body></html>",
        '{"status": "ok"}',
        "umo_live_bytes{model=",
        "umo_live_bytes{} twelve\n",
        "hello",
    ],
)
def test_what_is_no_prometheus_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        reading_of(text, 0.0)


def test_labels_from_elsewhere_are_cleaned_and_models_bounded() -> None:
    text = 'umo_live_bytes{model="\x1b[2J",version="1"} 1\n'
    assert list(reading_of(text, 0.0).models) == [ModelKey("?[2J", "1")]
    many = "".join(f'umo_live_bytes{{model="m{i}",version="1"}} 1\n' for i in range(10_050))
    assert len(reading_of(many, 0.0).models) == 10_000


def test_a_name_may_hold_what_elsewhere_ends_a_line() -> None:
    for separator in "\u2028\u2029\x85\x0b\x0c\x1c":
        text = f'umo_live_bytes{{model="a{separator}b",version="1"}} 1\numo_live_bytes{{model="c",version="1"}} 2\n'
        assert set(reading_of(text, 0.0).models) == {ModelKey("a?b", "1"), ModelKey("c", "1")}
    text = 'umo_live_bytes{model="a\\nb\\"c\\\\",version="1"} 1\r\n'
    assert list(reading_of(text, 0.0).models) == [ModelKey('a?b"c\\', "1")]


def test_figures_that_cannot_be_are_left_out() -> None:
    """They would be in every sum, and in a trend that cannot be drawn."""
    for value in ("NaN", "+Inf", "-Inf", "-100", "1.7e308"):
        assert not reading_of(f'umo_moved_bytes_total{{model="m",version="1"}} {value}\n', 0.0).models


def test_openmetrics_is_understood_too() -> None:
    text = '# TYPE umo_moves counter\numo_moves_total{model="m",version="1"} 3.0\n# EOF\n'
    reading = reading_of(text, 0.0, openmetrics=True)
    assert reading.models[ModelKey("m", "1")].counters == {("moves",): 3.0}


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("gpu7:8002", "http://gpu7:8002/metrics"),
        ("http://gpu7:8002", "http://gpu7:8002/metrics"),
        ("http://gpu7:8002/", "http://gpu7:8002/metrics"),
        ("https://x/prom/metrics?a=b", "https://x/prom/metrics?a=b"),
        ("[::1]:8002", "http://[::1]:8002/metrics"),
        ("127.0.0.1:8002/metrics", "http://127.0.0.1:8002/metrics"),
    ],
)
def test_targets_as_users_write_them(target: str, url: str) -> None:
    assert url_of(target) == url


@pytest.mark.parametrize(
    "target", ["ftp://x/metrics", "file:///etc/passwd", "http://", "http:///metrics", "x:port", "x:70000", "a b", "x:0"]
)
def test_targets_that_cannot_be(target: str) -> None:
    with pytest.raises(ValueError):
        url_of(target)


# ---- servers ----


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says anything."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(5)
                try:
                    peer.recv(4096)
                    serve(peer)
                except OSError:
                    pass  # who asked has gone

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def answer(
    body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain"
) -> Callable[[socket.socket], None]:
    return lambda peer: peer.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)


def drip(first: bytes) -> Callable[[socket.socket], None]:
    def serve(peer: socket.socket) -> None:
        peer.sendall(first)
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            peer.sendall(b"x")
            time.sleep(0.02)

    return serve


def endless(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        peer.sendall(b'umo_live_bytes{model="m",version="1"} 1\n' * 1000)


def failure(url: str, timeout_s: float = 0.4, most_bytes: int = 1 << 20) -> str:
    source = Scrape(url, timeout_s, most_bytes)
    start = time.monotonic()
    with pytest.raises(SourceError) as caught:
        source.read()
    assert time.monotonic() - start < timeout_s + 1.0
    source.close()
    text = str(caught.value)
    assert text.startswith(url) and "\n" not in text and len(text) < 200
    return text


def test_a_good_answer() -> None:
    with raw_server(answer(TEXT.encode())) as url:
        source = Scrape(url)
        assert len(source.read().models) == 2
        assert source.read().time_s > 0


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (answer(b"<html>not found</html>"), "no Prometheus text"),
        (answer(b"\xff\xfe\x00umo_"), "no Prometheus text"),
        (answer(b"", b"HTTP/1.1 404 Not Found"), "404 Not Found"),
        (answer(b"", b"HTTP/1.1 500 \x1b[31mred"), "500 ?[31mred"),
        (answer(b"", b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd"), "302"),
        (answer(b"x" * 10, b"HTTP/1.1 200 OK\r\nContent-Length: 50"), ""),
        (lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), ""),
        (lambda peer: None, ""),
        (endless, "more than 1 MiB"),
        (drip(b"HTTP/1.1 200 OK\r\n\r\n"), "no answer in time"),
        (drip(b"HTTP/1.1 200 OK\r\nX-Slow: "), "no answer in time"),
        (lambda peer: time.sleep(0.8), "no answer in time"),
    ],
    ids=["html", "binary", "404", "500", "file", "short", "ssh", "closed", "endless", "drip", "drip-head", "silent"],
)
def test_a_bad_answer_is_one_line_in_time(serve: Callable[[socket.socket], None], words: str) -> None:
    with raw_server(serve) as url:
        assert words in failure(url)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "connection refused" in failure(f"http://127.0.0.1:{port}/metrics")
    assert "no such host" in failure("http://does-not-exist.invalid/metrics", timeout_s=5)


def test_a_slow_server_is_asked_once_at_a_time_and_again_later() -> None:
    asked, awake = threading.Event(), threading.Event()

    def serve(peer: socket.socket) -> None:
        if not asked.is_set():
            asked.set()
            awake.wait(30)
            return
        answer(TEXT.encode())(peer)

    with raw_server(serve) as url:
        source = Scrape(url, 0.3)
        for _ in range(2):
            with pytest.raises(SourceError, match="no answer in time"):
                source.read()
        assert asked.wait(10)
        awake.set()
        for _ in range(200):
            try:
                assert len(source.read().models) == 2
                break
            except SourceError:
                time.sleep(0.05)
        else:
            raise AssertionError("the server that came to itself is not read again")


class Redirects(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0")
        self.end_headers()
        self.wfile.write(b'# TYPE umo_moves counter\numo_moves_total{model="m",version="1"} 3.0\n# EOF\n')

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_redirection_is_followed() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reading = Scrape(f"http://127.0.0.1:{server.server_port}/metrics").read()
        server.shutdown()
    assert reading.models[ModelKey("m", "1")].counters == {("moves",): 3.0}


def test_every_family_is_known_once() -> None:
    assert len(FAMILIES) == 31 and all(name.startswith("umo_") for name in FAMILIES)
