"""Where buffers with known lifetimes lie in one block: libumo's planner, and pictures of its plans.

    table = planning.read("model.csv")
    plan = planning.solve(table, seconds=10)
    plan.peak, plan.bound, plan.proof

The planner and the reader of its CSV files are the library's (umo/plan.h); nothing is computed twice here.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NoReturn

from . import paths

PROOFS = ("open", "at_bound", "exhausted", "infeasible")
_OK, _LIMIT, _TIMEOUT = 0, 3, 10
_MOST = 2**63 - 1


def _shown(text: str) -> str:
    """Ids are anybody's bytes; a terminal and a drawing get none that are instructions or no text."""
    return "".join(c if c.isprintable() else "?" for c in text)


class PlanError(Exception):
    """Buffers that cannot be planned, or a file that has none; one line in words."""

    def __init__(self, words: str) -> None:
        super().__init__(_shown(words))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("lower", ctypes.c_int64),
        ("upper", ctypes.c_int64),
        ("size_bytes", ctypes.c_uint64),
        ("align_bytes", ctypes.c_uint64),
    )


class _Progress(ctypes.Structure):
    _fields_ = (
        ("peak_bytes", ctypes.c_int64),
        ("bound_bytes", ctypes.c_int64),
        ("nodes", ctypes.c_uint64),
        ("time_ns", ctypes.c_uint64),
    )


_ASKED = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(_Progress), ctypes.c_void_p)


class _Options(ctypes.Structure):
    _fields_ = (
        ("capacity_bytes", ctypes.c_uint64),
        ("time_limit_ns", ctypes.c_uint64),
        ("node_limit", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("progress", _ASKED),
        ("user", ctypes.c_void_p),
    )


class _Result(ctypes.Structure):
    _fields_ = (
        ("peak_bytes", ctypes.c_int64),
        ("bound_bytes", ctypes.c_int64),
        ("live_bytes", ctypes.c_int64),
        ("proof", ctypes.c_int),
        ("interrupted", ctypes.c_bool),
        ("out_of_limit", ctypes.c_bool),
        ("nodes", ctypes.c_uint64),
        ("time_ns", ctypes.c_uint64),
    )


class _Error(ctypes.Structure):
    _fields_ = (("status", ctypes.c_int), ("native", ctypes.c_int32), ("text", ctypes.c_char * 256))


class _Table(ctypes.Structure):
    _fields_ = (
        ("buffers", ctypes.POINTER(_Buffer)),
        ("ids", ctypes.POINTER(ctypes.c_char_p)),
        ("offsets", ctypes.POINTER(ctypes.c_int64)),
        ("count", ctypes.c_size_t),
        ("text", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(paths.library()))
    error, size = ctypes.POINTER(_Error), ctypes.c_size_t
    library.umo_plan.argtypes = [
        ctypes.POINTER(_Buffer),
        size,
        ctypes.POINTER(_Options),
        ctypes.POINTER(ctypes.c_int64),
        ctypes.POINTER(_Result),
        error,
    ]
    library.umo_plan_check.argtypes = [
        ctypes.POINTER(_Buffer),
        size,
        ctypes.POINTER(ctypes.c_int64),
        ctypes.POINTER(ctypes.c_int64),
        error,
    ]
    library.umo_plan_table_read.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Table), error]
    library.umo_plan_table_write.argtypes = [ctypes.POINTER(_Table), ctypes.c_char_p, error]
    library.umo_plan_table_finish.argtypes = [ctypes.POINTER(_Table)]
    library.umo_plan_table_finish.restype = None
    return library


@dataclass(frozen=True)
class Buffer:
    """In use from `lower` until just before `upper`."""

    id: str  # bytes of a file that are not UTF-8 are surrogates (PEP 383), and such bytes again when written
    lower: int
    upper: int
    size: int
    alignment: int = 1


@dataclass(frozen=True)
class Plan:
    """What was found. `peak` and `offsets` are None where no plan was."""

    buffers: Sequence[Buffer]
    offsets: list[int] | None
    peak: int | None
    bound: int  # no plan is shorter
    live: int  # most bytes in use at once
    proof: str  # one of PROOFS
    interrupted: bool
    nodes: int
    seconds: float
    complaint: str = field(default="")  # why the capacity was not reached

    @property
    def optimal(self) -> bool:
        return self.proof in ("at_bound", "exhausted")

    @property
    def gap(self) -> float | None:
        """By how much the plan may be longer than it has to be: 0.02 is two percent."""
        return None if self.peak is None else self.peak / self.bound - 1 if self.bound else 0.0


def _words(error: _Error) -> str:
    return error.text.decode(errors="replace")


def _path(path: str | Path) -> bytes:
    made = os.fsencode(path)
    if b"\0" in made:  # the library would take what is before it for the path
        raise ValueError(f"a path with a zero byte: {path!r}")
    return made


def _fail(error: _Error, path: str | Path) -> NoReturn:
    if error.native:
        raise OSError(error.native, os.strerror(error.native), str(path))
    raise PlanError(_words(error))


def read(path: str | Path) -> tuple[list[Buffer], list[int] | None]:
    """The buffers of a CSV file, and their offsets if it has any. Raises PlanError, or OSError for the file."""
    table, error = _Table(), _Error()
    if _library().umo_plan_table_read(_path(path), ctypes.byref(table), ctypes.byref(error)) != _OK:
        _fail(error, path)
    try:
        found = [
            Buffer(table.ids[i].decode(errors="surrogateescape"), b.lower, b.upper, b.size_bytes, b.align_bytes or 1)
            for i, b in enumerate(table.buffers[: table.count])
        ]
        return found, (list(table.offsets[: table.count]) if table.offsets else None)
    finally:
        _library().umo_plan_table_finish(ctypes.byref(table))


def write(path: str | Path, buffers: Sequence[Buffer], offsets: Sequence[int] | None = None) -> None:
    """Writes a CSV file that read() reads; it is the old file or the new one. Raises PlanError or OSError.

    Ids must not be empty, hold a zero byte, or be the same.
    """
    array, error = _array(buffers), _Error()
    ids = (ctypes.c_char_p * max(1, len(buffers)))(*_ids(buffers))
    numbers = None if offsets is None else _numbers(buffers, offsets)
    table = _Table(array, ids, numbers, len(buffers), None)
    if _library().umo_plan_table_write(ctypes.byref(table), _path(path), ctypes.byref(error)) != _OK:
        _fail(error, path)


def _array(buffers: Iterable[Buffer]) -> ctypes.Array[_Buffer]:
    rows = []
    for b in buffers:
        if not all(-_MOST <= x <= _MOST for x in (b.lower, b.upper, b.size, b.alignment)):
            raise PlanError(f"{b.id}: a number is beyond 63 bits")
        if b.size < 1 or b.alignment < 0:
            raise PlanError(f"{b.id}: size {b.size}, alignment {b.alignment}: must be 1 or more")
        if b.upper <= b.lower:
            raise PlanError(f"{b.id}: its lifetime ends at {b.upper}, not after its begin, {b.lower}")
        rows.append(_Buffer(b.lower, b.upper, b.size, b.alignment))
    return (_Buffer * max(1, len(rows)))(*rows)


def _numbers(buffers: Sequence[Buffer], offsets: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    if len(offsets) != len(buffers):
        raise PlanError(f"{len(offsets)} offsets for {len(buffers)} buffers: each needs one")
    for b, offset in zip(buffers, offsets, strict=True):
        if not 0 <= offset <= _MOST:
            raise PlanError(f"{b.id}: its offset, {offset}, is not within 0 to 2^63 - 1")
    return (ctypes.c_int64 * max(1, len(offsets)))(*offsets)


def _ids(buffers: Sequence[Buffer]) -> list[bytes]:
    made: dict[bytes, None] = {}
    for k, b in enumerate(buffers):
        try:
            name = b.id.encode(errors="surrogateescape")
        except UnicodeEncodeError as error:
            raise PlanError(f"the id {b.id} has half of a surrogate pair: it must be text") from error
        if not name or b"\0" in name:
            raise PlanError(f"the id of buffer {k} {'has a zero byte' if name else 'is empty'}: no file can have it")
        if name in made:  # as bytes: two texts may be the same ones
            raise PlanError(f"the id {b.id} is that of two buffers: each needs its own")
        made[name] = None
    return list(made)


class _Interrupt:
    """While it is open, Ctrl-C is noted instead of raised, so that the plan found so far is kept."""

    def __init__(self) -> None:
        self.noted = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.noted = True

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def solve(
    buffers: Sequence[Buffer],
    *,
    capacity: int = 0,
    seconds: float = 10.0,
    nodes: int = 0,
    seed: int = 0,
    progress: Callable[[int | None, int, float], bool] | None = None,
) -> Plan:
    """Finds an offset for each buffer: the shortest block, or any of `capacity` bytes.

    `seconds` and `nodes` limit the search, 0 is no limit; the same nodes give the same plan everywhere. Ctrl-C ends
    it with the best plan so far. `progress` gets the best peak, the bound and the seconds, and says whether to go on;
    what it raises ends the search and is raised here. A capacity that is not reached is told in `complaint`. Raises
    PlanError where the buffers cannot be planned, or a limit is no number from 0 to 2^64 - 1 (bytes, nodes, ns).
    """
    for name, value in (("capacity", capacity), ("nodes", nodes), ("seed", seed)):
        if not 0 <= value < 2**64:
            raise PlanError(f"{name} {value}: must be 0 to 2^64 - 1")
    if not 0 <= seconds < 2**64 / 1e9:  # not a number is neither
        raise PlanError(f"seconds {seconds}: must be 0 (no limit) to {2**64 / 1e9:.0f}")
    array, error, result = _array(buffers), _Error(), _Result()
    offsets = (ctypes.c_int64 * max(1, len(buffers)))()
    raised: list[BaseException] = []
    with _Interrupt() as interrupt:

        def asked(state: Any, _: Any) -> bool:
            if raised or interrupt.noted:
                return False
            try:
                now = state.contents
                best = now.peak_bytes if now.peak_bytes >= 0 else None
                return progress is None or bool(progress(best, now.bound_bytes, now.time_ns / 1e9))
            except BaseException as error:  # noqa: BLE001  ctypes would print it, and the search would go on
                raised.append(error)
                return False

        # The least time is a nanosecond: 0 would be no limit.
        options = _Options(capacity, math.ceil(seconds * 1e9), nodes, seed, _ASKED(asked), None)
        status = _library().umo_plan(
            array, len(buffers), ctypes.byref(options), offsets, ctypes.byref(result), ctypes.byref(error)
        )
    if raised:
        raise raised[0]
    if status not in (_OK, _LIMIT, _TIMEOUT) or (status == _LIMIT and PROOFS[result.proof] != "infeasible"):
        raise PlanError(_words(error))
    planned = result.peak_bytes >= 0
    return Plan(
        buffers,
        list(offsets[: len(buffers)]) if planned else None,
        result.peak_bytes if planned else None,
        result.bound_bytes,
        result.live_bytes,
        PROOFS[result.proof],
        result.interrupted,
        result.nodes,
        result.time_ns / 1e9,
        "" if status == _OK else _words(error),
    )


def check(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """The peak of a plan. Raises PlanError if it is none, with the two buffers that overlap."""
    error, peak = _Error(), ctypes.c_int64()
    array, numbers = _array(buffers), _numbers(buffers, offsets)
    if _library().umo_plan_check(array, len(buffers), numbers, ctypes.byref(peak), ctypes.byref(error)) != _OK:
        words = _words(error)
        numbered = re.match(r"buffers? \d+( and \d+)?", words)  # the library knows numbers, who reads it ids
        end = numbered.end() if numbered else 0
        raise PlanError(re.sub(r"\d+", lambda number: buffers[int(number[0])].id, words[:end]) + words[end:])
    return peak.value


@dataclass(frozen=True)
class Graph:
    """What a model's graph has of tensors between its nodes."""

    buffers: list[Buffer]
    unknown: list[str]  # tensors whose size the graph does not say, left out


def _run(path: str | Path, names: list[str], inputs: dict[str, Any]) -> dict[str, int]:
    """Bytes of tensors whose shapes follow from values: the model is run once, on zeros; {} without onnxruntime."""
    import numpy as np
    import onnx

    try:
        import onnxruntime
    except ImportError:
        return {}
    model = onnx.load(str(path))
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    feed = {}
    for name, value in inputs.items():
        tensor = value.type.tensor_type
        shape = [d.dim_value for d in tensor.shape.dim]
        feed[name] = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        made = session.run(names, feed)
    except Exception:  # a model that zeros are nothing for, or beyond what one message holds
        return {}
    return {name: array.nbytes for name, array in zip(names, made, strict=True) if isinstance(array, np.ndarray)}


def from_onnx(path: str | Path, shapes: dict[str, Sequence[int]], alignment: int = 64) -> Graph:
    """The intermediate tensors of an ONNX model, as lifetimes in steps of its nodes.

    Inputs, outputs, weights and what follows from weights alone are not among them: their memory is the client's, or
    lives for ever. `shapes` gives inputs with open dimensions their sizes; other open dimensions are 1. Where sizes
    follow from values the model is run once on zeros, if onnxruntime is there. Raises ImportError without onnx,
    PlanError for a file that is no model or an input that it does not have.
    """
    import onnx
    from onnx import shape_inference

    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # what protobuf raises has no common class
        raise PlanError(f"{path} is no ONNX model") from error
    graph = model.graph
    weights = {w.name for w in graph.initializer}
    inputs = {i.name: i for i in graph.input if i.name not in weights}
    if unknown := sorted(set(shapes) - set(inputs)):
        raise PlanError(f"{path} has no input {', '.join(unknown)}; it has {', '.join(sorted(inputs))}")
    for name, value in inputs.items():
        dimensions = value.type.tensor_type.shape.dim
        given = shapes.get(name) or [d.dim_value or 1 for d in dimensions]
        if len(given) != len(dimensions):
            raise PlanError(f"{path}: input {name} has {len(dimensions)} dimensions, not {len(given)}")
        for dimension, size in zip(dimensions, given, strict=True):
            dimension.dim_value = size
    del graph.value_info[:]  # sizes that were inferred for open dimensions
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    sizes: dict[str, int] = {}
    for value in graph.value_info:
        tensor = value.type.tensor_type
        known = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
        if known and tensor.elem_type != onnx.TensorProto.STRING:
            count = math.prod(d.dim_value for d in tensor.shape.dim)
            sizes[value.name] = count * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    outside = weights | set(inputs) | {o.name for o in graph.output} | {""}
    made: dict[str, int] = {}
    moving = set(inputs)  # what depends on an input; all else is as constant as weights are
    for step, node in enumerate(graph.node):
        if moving.intersection(node.input):
            moving.update(node.output)
            made |= {name: step for name in node.output if name not in outside}
    last = dict(made)
    for step, node in enumerate(graph.node):
        for name in node.input:
            if name in made:
                last[name] = step
    if not set(made) <= set(sizes):
        sizes |= _run(path, [name for name in made if name not in sizes], inputs)
    found = [Buffer(name, made[name], last[name] + 1, sizes[name], alignment) for name in made if sizes.get(name)]
    return Graph(found, [name for name in made if name not in sizes])


def first_fit(buffers: Sequence[Buffer]) -> int:
    """The peak without planning: each buffer, as it comes, takes the lowest gap of those in use then."""
    live: list[tuple[int, int, int]] = []  # offset, end, upper; by offset
    peak = 0
    for b in sorted(buffers, key=lambda b: b.lower):
        live = [held for held in live if held[2] > b.lower]
        at = 0
        for offset, end, _ in live:
            if offset >= at + b.size:
                break
            at = max(at, -(-end // b.alignment) * b.alignment)
        live.append((at, at + b.size, b.upper))
        live.sort()
        peak = max(peak, at + b.size)
    return peak


# Colours that neighbours can be told by, also by those who see few colours (Okabe and Ito).
_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#bbbbbb")
_WIDTH, _HEIGHT, _MARGIN = 1200, 700, 60


def _boxes(plan: Plan) -> Iterable[tuple[float, float, float, float, str, Buffer, int]]:
    """Left, top, width and height in pixels, colour, buffer and offset; time goes to the right, memory up."""
    if plan.offsets is None or not plan.buffers:
        return
    # By rank: in recorded traces most of the time nothing changes.
    times = {t: k for k, t in enumerate(sorted({t for b in plan.buffers for t in (b.lower, b.upper)}))}
    across = (_WIDTH - 2 * _MARGIN) / max(1, len(times) - 1)
    up = (_HEIGHT - 2 * _MARGIN) / max(1, plan.peak or 1)
    for k, (b, offset) in enumerate(zip(plan.buffers, plan.offsets, strict=True)):
        left = _MARGIN + times[b.lower] * across
        top = _HEIGHT - _MARGIN - (offset + b.size) * up
        width = (times[b.upper] - times[b.lower]) * across
        yield left, top, width, b.size * up, _COLOURS[k % len(_COLOURS)], b, offset


def _title(plan: Plan) -> str:
    return f"{len(plan.buffers):,} buffers, peak {plan.peak or 0:,} bytes, bound {plan.bound:,} ({plan.proof})"


def svg(plan: Plan) -> str:
    """The plan as an SVG text: time (by rank) to the right, memory up; each buffer says what it is when pointed at."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_MARGIN}" y="{_MARGIN - 24}" font-size="18">{escape(_title(plan))}</text>',
    ]
    for left, top, width, height, colour, b, offset in _boxes(plan):
        parts.append(
            f'<rect x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}" '
            f'stroke="black" stroke-width="0.4"><title>{escape(_shown(b.id))}: {b.size:,} bytes at {offset:,}, '
            f"{b.lower} to {b.upper}</title></rect>"
        )
    if plan.peak:
        top = _HEIGHT - _MARGIN - plan.bound / plan.peak * (_HEIGHT - 2 * _MARGIN)
        parts.append(
            f'<path d="M{_MARGIN} {top:.2f}H{_WIDTH - _MARGIN}" stroke="#d00" stroke-dasharray="6 4">'
            f"<title>bound: {plan.bound:,} bytes</title></path>"
        )
    parts.append(f'<text x="{_MARGIN}" y="{_HEIGHT - 20}" font-size="14">time &#8594;, memory &#8593;</text></svg>\n')
    return "\n".join(parts)


def png(plan: Plan, path: str | Path) -> None:
    """The same as a PNG file. Raises ImportError without Pillow (the extra `demo` of the package has it)."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN - 32), _title(plan), fill="black")
    for left, top, width, height, colour, _, _ in _boxes(plan):
        draw.rectangle((left, top, left + width, top + height), fill=colour, outline="black")
    if plan.peak:
        top = _HEIGHT - _MARGIN - plan.bound / plan.peak * (_HEIGHT - 2 * _MARGIN)
        draw.line((_MARGIN, top, _WIDTH - _MARGIN, top), fill="#dd0000", width=2)
    image.save(path, format="PNG")
