"""What a hostile client can do to the server itself, with backends that have nothing of umo in them.

Facts, not wishes: README's limits name them, and a server that no longer shows one of them fails no test here; 2.51,
which shows them all, has to. `null` touches nothing, `copying` copies by memcpy, `many` streams.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from umo.server import TritonServer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hostile.stage import version  # noqa: E402
from hostile.wire import Answer, Grpc, Http, Place, Segment, Tensor  # noqa: E402

pytestmark = pytest.mark.slow
SHOWS_THEM = "2.51.0"
SIZE = 1 << 20
SIGBUS, SIGSEGV = -7, -11


def config(backend: str, kind: str, out: str = "-1") -> str:
    return (
        f'backend: "{backend}"\nmax_batch_size: 0\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n'
        f'input [ {{ name: "IN" data_type: TYPE_{kind} dims: [ -1 ] }} ]\n'
        f'output [ {{ name: "OUT" data_type: TYPE_{kind} dims: [ {out} ] }} ]\n'
    )


MODELS = {
    "null": config("null", "FP32"),
    "null_strings": config("null", "STRING", "8"),
    "copying": config("copying", "FP32"),
    "many": config("many", "FP32") + "model_transaction_policy { decoupled: true }\n",
    "ensemble": config("", "FP32").replace('backend: ""', 'platform: "ensemble"').split("instance_group")[0]
    + 'input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
    'output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
    'ensemble_scheduling { step [ { model_name: "copying" model_version: -1 input_map { key: "IN" value: "IN" } '
    'output_map { key: "OUT" value: "OUT" } } ] }\n',
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[TritonServer]]:
    folder = tmp_path_factory.mktemp("models")
    for name, text in MODELS.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
    servers = [TritonServer(folder)]
    servers[0].start()
    yield servers
    servers[0].stop()


@pytest.fixture
def server(kept: list[TritonServer]) -> TritonServer:
    if not kept[0].running:
        kept[0].stop()
        kept[0].start()
    return kept[0]


@pytest.fixture
def segment(server: TritonServer) -> Iterator[Segment]:
    made = Segment(SIZE)
    with Http(server.http_port) as http:
        assert http.register(made.name, made.key, SIZE) == ""
        yield made
        with contextlib.suppress(OSError):
            http.unregister(made.name)
    made.close()


def ask(server: TritonServer, model: str, given: Tensor, wanted: Tensor) -> Answer | int:
    """The answer, or how the server ended."""
    with Http(server.http_port) as http_:
        try:
            return http_.infer(model, [given], [wanted])
        except OSError:
            assert server._process is not None
            return server._process.wait(timeout=30)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_numbers_in_a_region_that_shrank_are_not_touched(server: TritonServer, segment: Segment, transport) -> None:
    segment.truncate(0)
    given = Tensor("IN", "FP32", [SIZE // 8], place=Place(segment.name, 0, SIZE // 2))
    wanted = Tensor("OUT", "FP32", [], place=Place(segment.name, SIZE // 2, SIZE // 2))
    with Http(server.http_port) as http_, Grpc(server.grpc_port) as grpc:
        answer = (http_ if transport == "http" else grpc).infer("null", [given], [wanted])
    assert answer.error == ""
    assert server.running


def test_strings_are_read_by_the_server(server: TritonServer, segment: Segment) -> None:
    shows = version(server) == SHOWS_THEM
    segment.truncate(0)
    given = Tensor("IN", "BYTES", [100], place=Place(segment.name, 0, 800))
    end = ask(server, "null_strings", given, Tensor("OUT", "BYTES", []))
    assert end == SIGBUS or not shows, end


def test_strings_whose_size_carries_are_read_beyond_the_region(server: TritonServer, segment: Segment) -> None:
    shows = version(server) == SHOWS_THEM
    # offset + size is 2^64 - 4: seen as a range before the region's end, of nearly all the memory there is.
    segment.put(0, b"\4\0\0\0abcd" * 1000)
    given = Tensor("IN", "BYTES", [2**40], place=Place(segment.name, SIZE - 4000, 2**64 - SIZE + 3996 + 64))
    end = ask(server, "null_strings", given, Tensor("OUT", "BYTES", []))
    assert end in (SIGSEGV, SIGBUS) or not shows, end


def test_the_last_output_of_an_ensemble_is_written_by_the_server(server: TritonServer, segment: Segment) -> None:
    shows = version(server) == SHOWS_THEM
    segment.truncate(0)
    given = Tensor("IN", "FP32", [1024], bytes(4096))
    end = ask(server, "ensemble", given, Tensor("OUT", "FP32", [], place=Place(segment.name, 0, 4096)))
    assert end == SIGBUS or not shows, end


def test_an_output_whose_size_carries_is_taken_though_it_ends_behind_its_region(
    server: TritonServer, segment: Segment
) -> None:
    shows = version(server) == SHOWS_THEM
    given = Tensor("IN", "FP32", [16], bytes(64))
    end = ask(server, "null", given, Tensor("OUT", "FP32", [], place=Place(segment.name, SIZE - 8, 2**64 - 1)))
    assert (isinstance(end, Answer) and end.error == "") or not shows, end


def test_a_region_is_everybodys_who_knows_its_name(server: TritonServer, segment: Segment) -> None:
    """Names are listed to all; so who must not see a tensor must not reach the server."""
    shows = version(server) == SHOWS_THEM
    secret = bytes(range(64))
    segment.put(0, secret)
    with Http(server.http_port) as stranger:
        given = Tensor("IN", "FP32", [16], place=Place(segment.name, 0, 64))
        answer = stranger.infer("copying", [given], [Tensor("OUT", "FP32", [])])
        assert answer.outputs.get("OUT") == secret or not shows


def test_a_stream_that_is_dropped_with_responses_under_way(server: TritonServer) -> None:
    """Four clients that drop theirs again and again; server issues 7472, 7840 and 8034 have such crashes."""
    shows = version(server) == SHOWS_THEM
    end = time.monotonic() + 20

    def drop() -> None:
        with contextlib.suppress(OSError):
            while server.running and time.monotonic() < end:
                with Grpc(server.grpc_port) as grpc:
                    stream = grpc.stream()
                    stream.ask("many", [Tensor("IN", "FP32", [16], bytes(64))], [Tensor("OUT", "FP32", [])])
                    for _ in range(3):
                        stream.take()
                    stream.cancel()

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not server.running or not shows
