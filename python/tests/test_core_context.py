"""Contexts, devices, scopes, pools, buffers, weights, pressure, the recorder, and errors as exceptions."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import umo
from umo import _core


@pytest.fixture
def ctx() -> umo.Context:
    return umo.Context(shared=False)


def test_devices_tell_what_they_are(ctx: umo.Context) -> None:
    host = ctx.device("host")
    assert (host.driver, host.ordinal, repr(host)) == ("host", 0, "<umo.Device host:0>")
    assert host == ctx.device("host:0") and hash(host) == hash(ctx.device("host")) and host != "host"
    assert host.unified and "unified" in host.modes and host.info["host_processor"]
    for name, error in (("nvidia", umo.NotFoundError), ("host:99", umo.NotFoundError), ("host:", umo.InvalidError),
                        ("", umo.InvalidError), ("a" * 16, umo.InvalidError), ("host:x", umo.InvalidError),
                        ("host:123456", umo.InvalidError), ("ho\0st", umo.InvalidError)):  # fmt: skip
        with pytest.raises(error):
            ctx.device(name)
    with pytest.raises(TypeError):
        ctx.device(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _core.Device()  # type: ignore[misc]


def test_memory_is_where_it_was_asked_for(ctx: umo.Context) -> None:
    for mode in ctx.device("host").modes:
        buffer = ctx.buffer(100, device="host", mode=mode)
        assert (buffer.mode, buffer.nbytes, len(buffer), buffer.readonly) == (mode, 100, 100, False)
        assert buffer.device == ctx.device("host") and not buffer.movable
    placed = ctx.empty((10, 10), device=ctx.device("host"), pattern="cpu_dominant").buffer
    assert placed is not None and placed.pattern == "cpu_dominant" and placed.stats()["declared"] == "cpu_dominant"
    placed.pattern = "unknown"
    for wrong in ({"mode": "shared"}, {"pattern": "both"}):
        with pytest.raises(umo.InvalidError, match="none of"):
            ctx.buffer(1, device="host", **wrong)
    with pytest.raises(umo.InvalidError):
        placed.pattern = "often"
    with pytest.raises(AttributeError):
        del placed.pattern
    for wrong in (0, -1, 2**64, 2**63):
        with pytest.raises((umo.UmoError, ValueError)):
            ctx.buffer(wrong, device="host")
    with pytest.raises(TypeError):
        ctx.buffer(1.5, device="host")  # type: ignore[arg-type]
    for shape in ((-1,), (2**62, 2**62), (2**70,), (1,) * 33):
        with pytest.raises(umo.InvalidError):
            ctx.empty(shape, device="host")


def test_a_budget_is_a_memory_error(ctx: umo.Context) -> None:
    small = umo.Context(budget_bytes=1 << 20, shared=False)
    kept = small.empty(1 << 16, device="host", mode="unified")
    with pytest.raises(umo.LimitError) as raised:
        small.empty(1 << 20, device="host", mode="unified")
    assert raised.value.status == "LIMIT" and isinstance(raised.value, MemoryError)
    assert small.stats()["live_bytes"] >= kept.nbytes
    scope = ctx.scope("model", 4096)
    assert (scope.name, scope.limit_bytes) == ("model", 4096)
    with pytest.raises(umo.LimitError):
        ctx.buffer(8192, device="host", mode="unified", scope=scope)
    mine = ctx.buffer(1000, device="host", mode="unified", scope=scope)
    assert scope.stats()["live_buffers"] == 1 == ctx.scope().stats()["live_buffers"] and mine.nbytes == 1000
    with pytest.raises(TypeError):
        small.buffer(8, device="host", scope=scope)
    for fraction in (-1.0, 1.5):
        with pytest.raises(umo.InvalidError):
            umo.Context(budget_fraction=fraction, shared=False)


def test_buffers_move_and_are_counted(ctx: umo.Context) -> None:
    tensor = ctx.empty(1024, device="host")
    buffer = tensor.buffer
    assert buffer is not None and buffer.movable
    with tensor.write() as view:
        np.asarray(view)[:] = 3
    address = buffer.address
    for mode in ("private", "managed", "unified", "unified"):
        buffer.move(mode)
        assert buffer.mode == mode and buffer.address == address
    assert np.asarray(tensor).sum() == 3072
    assert ctx.stats()["moves"]["events"] == 3
    buffer.pin()
    assert buffer.pinned
    with pytest.raises(umo.BusyError):
        buffer.move("private", timeout=0)
    buffer.unpin()
    with pytest.raises(umo.InvalidError):
        buffer.unpin()
    shown = memoryview(tensor)
    with pytest.raises(umo.BusyError):
        buffer.move("private", timeout=0)
    shown.release()
    with pytest.raises(umo.UnsupportedError):
        ctx.buffer(8, device="host", mode="unified").move("private")
    assert buffer.optimize() in (True, False) and ctx.optimize() >= 0
    assert buffer.stats()["host"]["writes"]["events"] >= 1
    summary = ctx.summary()
    assert summary["bytes"] >= 4096 and sum(summary["mode_bytes"].values()) == summary["bytes"]
    with pytest.raises(umo.UnsupportedError, match="without a context"):
        umo.Tensor.wrap(np.ones(3)).buffer.optimize()  # type: ignore[union-attr]


def test_bytes_go_in_and_out(ctx: umo.Context) -> None:
    buffer = ctx.buffer(16, device="host", mode="private")
    buffer.upload(np.arange(4, dtype=np.int32))
    out = bytearray(8)
    buffer.download(out, offset_bytes=4)
    assert np.frombuffer(out, np.int32).tolist() == [1, 2]
    buffer.prefetch("host")
    buffer.prefetch("device", offset_bytes=4, size_bytes=8)
    assert buffer.valid() == ("host", "device")
    with pytest.raises(BufferError):
        buffer.download(b"12345678")
    for wrong in (lambda: buffer.upload(bytes(17)), lambda: buffer.upload(b"1", offset_bytes=16),
                  lambda: buffer.prefetch("host", offset_bytes=17), lambda: buffer.valid(17),
                  lambda: buffer.valid(8, 9), lambda: buffer.upload(b"1", queue=77), lambda: buffer.prefetch("gpu"),
                  lambda: buffer.tensor(5), lambda: buffer.tensor(4, offset_bytes=4)):  # fmt: skip
        with pytest.raises(umo.InvalidError):
            wrong()
    with pytest.raises(umo.RefusedError):
        buffer.tensor(3, offset_bytes=1)
    assert buffer.tensor((2, 2), "int16", offset_bytes=8).shape == (2, 2)
    assert bytes(ctx.buffer(3, device="host", mode="unified").tensor(3, "uint8").buffer or b"") is not None


def test_pools_reuse_their_blocks(ctx: umo.Context) -> None:
    with ctx.pool(device="host", idle=float("inf")) as pool:
        for _ in range(10):
            tensor = pool.empty((100, 10), "int8", owner=3)
            np.asarray(tensor)[...] = 1
        assert pool.stats()["hits"] >= 8 and pool.stats()["live_bytes"] >= 1000
        block = pool.take(77)
        assert block.nbytes >= 77
        array = np.from_dlpack(pool.empty(9))
        array[:] = 1
        block.release()
        del tensor
        pool.trim()
        assert pool.empty(0).buffer is None and ctx.trim() >= 0
    with pytest.raises(umo.InvalidError, match="closed"):
        pool.take(1)
    assert pool.closed and array.sum() == 9
    for wrong in ({"mode": "x"}, {"align_bytes": 3}, {"idle": -1}):
        with pytest.raises(umo.InvalidError):
            ctx.pool(device="host", **wrong)
    with pytest.raises(umo.InvalidError):
        ctx.pool(device="host").take(0)
    with pytest.raises(TypeError):
        umo.Pool("no context")  # type: ignore[arg-type]


def test_weights_are_mapped_once(ctx: umo.Context, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(range(256)) * 32)
    weights = umo.Weights(ctx, path)
    again = umo.Weights(ctx, str(path))
    first, second = np.frombuffer(weights, np.uint8), np.frombuffer(again, np.uint8)
    assert first.ctypes.data == second.ctypes.data and not first.flags.writeable
    assert weights.nbytes == len(weights) == 8192 and first[257] == 1
    weights.check()
    weights.rest()
    tensor = weights.buffer(device="host", offset_bytes=4096).tensor((16, 256), "uint8")
    assert tensor.readonly and np.asarray(tensor)[3, 9] == 9
    with pytest.raises(umo.InvalidError):
        weights.buffer(device="host", offset_bytes=9999)
    path.write_bytes(b"other")
    with pytest.raises(umo.NotFoundError):
        weights.check()
    with pytest.raises(umo.NotFoundError):
        umo.Weights(ctx, tmp_path / "none")
    with pytest.raises(umo.InvalidError):
        umo.Weights(ctx, tmp_path)


def test_pressure_is_watched_and_answered(ctx: umo.Context) -> None:
    assert ctx.pressure is None
    with pytest.raises(umo.InvalidError, match="watch_pressure"):
        ctx.admit(1)
    small = umo.Context(budget_bytes=1 << 20, shared=False)
    small.watch_pressure(threshold=0.9, manual=True)
    assert small.poke_pressure() in ("normal", "low", "medium", "critical")
    small.admit(0)
    with pytest.raises(umo.LimitError) as raised:
        small.admit(1 << 40)
    assert raised.value.reason == "limit" and raised.value.remedy
    pressure = small.pressure
    assert pressure is not None and pressure["samples"] >= 1 and not pressure["refusing"]
    with pytest.raises(umo.InvalidError):
        small.watch_pressure(threshold=0.5)


def test_the_recorder_sees_what_python_does(ctx: umo.Context, tmp_path: Path) -> None:
    _core.profile_start(memory_bytes=1 << 20)
    with ctx.empty(4, device="host").write():
        pass
    _core.profile_enable(False)
    stats = _core.profile_stats()
    assert not stats["recording"] and stats["recorded"] >= 3
    _core.profile_dump(tmp_path / "events.csv")
    assert "access_begin" in (tmp_path / "events.csv").read_text()
    umo.profile.start(memory_bytes=1 << 20)
    umo.Tensor.wrap(np.ones(3))
    umo.profile.dump(tmp_path / "again.csv")
    umo.profile.enable(False)
    kinds = umo.profile.read(tmp_path / "again.csv").events["kind"].tolist()
    assert umo.profile.KINDS.index("import") in kinds and not umo.profile.stats()["recording"]
    with pytest.raises(umo.SystemCallError) as raised:
        _core.profile_dump(tmp_path / "none" / "events.csv")
    assert raised.value.errno == raised.value.native == errno.ENOENT and isinstance(raised.value, OSError)
    with pytest.raises(umo.InvalidError):
        _core.profile_start(shards=3)


def test_every_status_has_its_exception() -> None:
    bases = {"INVAL": ValueError, "NOMEM": MemoryError, "LIMIT": MemoryError, "UNSUPPORTED": TypeError,
             "NOT_FOUND": LookupError, "BUSY": BufferError, "DEVICE": RuntimeError, "SYSTEM": OSError,
             "REFUSED": ValueError, "TIMEOUT": TimeoutError}  # fmt: skip
    classes = {kind.status: kind for kind in umo.UmoError.__subclasses__()}
    assert set(classes) == set(_core.STATUSES) - {"OK"} == set(bases)
    for status, kind in classes.items():
        assert issubclass(kind, bases[status]) and kind.__doc__ and getattr(umo, kind.__name__) is kind
    assert umo.UmoError("x").reason is None and umo.UmoError("x").native == 0


def test_the_lists_are_the_librarys() -> None:
    header = (Path(__file__).parents[2] / "include" / "umo" / "reasons.inc").read_text()
    assert len(_core.REASONS) == header.count("\nUMO_REASON(")
    assert _core.REASONS[0][0] == "none" and all(cause and remedy for _, cause, remedy in _core.REASONS)
    assert _core.MODES == ("unified", "managed", "private") and "unknown" not in _core.EVENT_KINDS
    assert _core.PATTERNS[0] == "unknown" and umo.__version__ == _core.LIBRARY_VERSION


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_umo_loads_nothing_heavy() -> None:
    loaded = run("import sys; before = set(sys.modules); import umo; print(*sorted(set(sys.modules) - before))")
    assert loaded.split() == ["umo"]
    assert "numpy" not in run("import sys, umo; umo.Tensor; umo.Context; print(*sys.modules)").split()


def test_the_package_says_what_it_has() -> None:
    assert set(umo.__all__) <= set(dir(umo))
    for name in umo.__all__:
        assert getattr(umo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Tenser'"):
        _ = umo.Tenser  # type: ignore[attr-defined]


def test_a_missing_extension_is_told_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import umo; umo.Tensor"], capture_output=True, text=True, check=False,
        env={"UMO_BUILD": str(tmp_path), "PYTHONPATH": str(Path(umo.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 1 and "make build" in done.stderr.splitlines()[-1]


def test_ending_the_process_with_everything_open_is_quiet() -> None:
    code = """
import umo, numpy as np
ctx = umo.Context(); pool = ctx.pool(device="host")
kept = [np.asarray(ctx.empty(9, device="host")), np.from_dlpack(umo.Tensor.wrap(np.ones(9))), pool.empty(5),
        ctx.empty(3, device="host").__dlpack__(), np.from_dlpack(pool.empty(4))]
bracket = ctx.empty(3, device="host").write(); bracket.__enter__()
print("end")
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
