"""The cases that the onnx package brings, as ort_cases reads them, and what ort_cases answers.

Collecting takes seconds, so the pack is kept under build/ by the versions that it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import subprocess
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("UMO_BUILD", ROOT / "build" / "release")).resolve()
PROGRAM = BUILD / "tests" / "ort_cases"
LIBRARY = Path(onnxruntime.__file__).parent / "capi"

# ONNX's element type: Triton's name, Triton's number, NumPy's type.
TYPES: dict[int, tuple[str, int, Any]] = {
    TensorProto.BOOL: ("BOOL", 1, np.bool_),
    TensorProto.UINT8: ("UINT8", 2, np.uint8),
    TensorProto.UINT16: ("UINT16", 3, np.uint16),
    TensorProto.UINT32: ("UINT32", 4, np.uint32),
    TensorProto.UINT64: ("UINT64", 5, np.uint64),
    TensorProto.INT8: ("INT8", 6, np.int8),
    TensorProto.INT16: ("INT16", 7, np.int16),
    TensorProto.INT32: ("INT32", 8, np.int32),
    TensorProto.INT64: ("INT64", 9, np.int64),
    TensorProto.FLOAT16: ("FP16", 10, np.float16),
    TensorProto.FLOAT: ("FP32", 11, np.float32),
    TensorProto.DOUBLE: ("FP64", 12, np.float64),
    TensorProto.STRING: ("STRING", 13, np.object_),
    TensorProto.BFLOAT16: ("BF16", 14, ml_dtypes.bfloat16),
}
NUMPY = {number: kind for _, number, kind in TYPES.values()}
TENSORS_MAX, RANK_MAX = 8, 15
PLACES = ("edge", "odd", "client")


@dataclass
class Case:
    """One model with one set of inputs and the reference's answer."""

    name: str
    kind: str
    model: bytes
    inputs: list[tuple[str, int, np.ndarray]]  # name, ONNX's element type, value
    outputs: list[tuple[str, np.ndarray]]
    rtol: float
    atol: float
    settings: dict[str, Any] = field(default_factory=dict)  # more of the model's configuration

    @property
    def operators(self) -> list[str]:
        return [node.op_type for node in onnx.load_from_string(self.model).graph.node]


@dataclass
class Answer:
    """What ort_cases said of one case; kinds as in pack.h."""

    index: int
    kind: str
    text: str
    control: list[bool] = field(default_factory=list)
    places: list[list[np.ndarray]] = field(default_factory=list)
    runs: int = 0
    errors: int = 0
    foreign: int = 0

    @property
    def words(self) -> list[str]:
        """The text's parts; the first says where a case ended the program."""
        return self.text.split(": ")


KINDS = ("outputs", "not loaded", "failed", "broken", "crashed", "hung", "mutated")


# --- collecting -----------------------------------------------------------------------------------------------------


def _tensor_type(info: onnx.ValueInfoProto) -> int | None:
    """The element type of a tensor that Triton has a name for."""
    if info.type.WhichOneof("value") != "tensor_type":
        return None
    element = info.type.tensor_type.elem_type
    return element if element in TYPES else None


def _array(value: Any, element: int) -> np.ndarray | None:
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if value is None or isinstance(value, (list, dict)):
        return None
    array = np.asarray(value)
    kind = TYPES[element][2]
    if kind is np.object_:
        encoded = np.empty(array.size, np.object_)
        encoded[:] = [e if isinstance(e, bytes) else str(e).encode() for e in array.ravel()]
        return encoded.reshape(array.shape)
    return array if array.dtype == np.dtype(kind) else None


def _express(test: Any, model: onnx.ModelProto, inputs: Sequence[Any], outputs: Sequence[Any]) -> Case | None:
    """The case in Triton's terms; None where Triton has none for it."""
    graph = model.graph
    given = {tensor.name for tensor in graph.initializer}
    asked = [info for info in graph.input if info.name not in given]
    fits = 0 < len(asked) <= TENSORS_MAX and 0 < len(graph.output) <= TENSORS_MAX
    if not fits or len(inputs) != len(asked) or len(outputs) != len(graph.output):
        return None
    fed: list[tuple[str, int, np.ndarray]] = []
    for info, value in zip(asked, inputs, strict=True):
        element = _tensor_type(info)
        array = None if element is None else _array(value, element)
        if element is None or array is None or array.ndim > RANK_MAX:
            return None
        fed.append((info.name, element, array))
    expected = []
    for info, value in zip(graph.output, outputs, strict=True):
        element = _tensor_type(info)
        array = None if element is None else _array(value, element)
        if array is None or array.ndim > RANK_MAX:
            return None
        expected.append((info.name, array))
    return Case(test.name, test.kind, model.SerializeToString(), fed, expected, test.rtol, test.atol)


def _from_files(kind: str) -> Iterator[tuple[Any, onnx.ModelProto, list[Any], list[Any]]]:
    from onnx.backend.test.loader import load_model_tests

    for test in load_model_tests(kind=kind):
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        for number, data in enumerate(sorted(folder.glob("test_data_set_*"))):
            sides = []
            for side, infos in (("input", model.graph.input), ("output", model.graph.output)):
                files = [data / f"{side}_{i}.pb" for i in range(len(list(data.glob(f"{side}_*.pb"))))]
                try:
                    sides.append([onnx.load_tensor(file) for file in files])
                except Exception:  # a sequence or an optional value
                    sides.append([None] * len(infos))
            named = type("Named", (), {**vars(test), "name": test.name if number == 0 else f"{test.name}_{number}"})
            yield named, model, *sides


def _collect() -> list[Case]:
    from onnx.backend.test.case.node import collect_testcases

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in collect_testcases():
            for inputs, outputs in test.data_sets or ():
                found.append(_express(test, test.model, inputs, outputs))
        for kind in ("pytorch-converted", "pytorch-operator", "simple"):
            for test, model, inputs, outputs in _from_files(kind):
                found.append(_express(test, model, inputs, outputs))
    return [case for case in found if case is not None]


def folder() -> Path:
    made = ROOT / "build" / "conformance"
    made.mkdir(parents=True, exist_ok=True)
    return made


def collect() -> list[Case]:
    """All cases that Triton can express, in one order."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    kept = folder() / f"onnx-{onnx.__version__}-{own}.pickle"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    cases = _collect()
    fresh = kept.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(pickle.dumps(cases))
    fresh.replace(kept)
    return cases


# --- packing --------------------------------------------------------------------------------------------------------


def wire(array: np.ndarray) -> bytes:
    if array.dtype != np.object_:
        return np.ascontiguousarray(array).tobytes()
    return b"".join(len(e).to_bytes(4, "little") + e for e in array.ravel())


def _dims(info: onnx.ValueInfoProto, rank: int) -> list[int]:
    """The configuration's word for what the model declares: one element where Triton has no scalar."""
    declared = info.type.tensor_type
    if not declared.HasField("shape"):
        return [-1] * rank or [1]
    return [d.dim_value if d.WhichOneof("value") == "dim_value" else -1 for d in declared.shape.dim] or [1]


def configuration(case: Case, parameters: dict[str, str]) -> str:
    graph = onnx.load_from_string(case.model).graph
    infos = {info.name: info for info in (*graph.input, *graph.output)}

    def entry(name: str, element: int, array: np.ndarray) -> dict[str, Any]:
        return {
            "name": name,
            "data_type": f"TYPE_{TYPES[element][0]}",
            "dims": _dims(infos[name], array.ndim),
        }

    made = {
        "max_batch_size": 0,
        "input": [entry(*one) for one in case.inputs],
        "output": [entry(n, infos[n].type.tensor_type.elem_type, a) for n, a in case.outputs],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        **case.settings,
    }
    return json.dumps(made)


def _bytes(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _text(text: str) -> bytes:
    return _bytes(text.encode() + b"\0")


def pack(cases: Iterable[Case], path: Path, **parameters: str) -> None:
    settings = {"intra_op_thread_count": "1", "inter_op_thread_count": "1", **parameters}
    records = []
    for case in cases:
        record = _text(case.name) + _text(configuration(case, settings)) + _bytes(case.model)
        record += struct.pack("<I", len(case.inputs))
        for name, element, array in case.inputs:
            shape = array.shape or (1,)
            record += _text(name) + struct.pack(f"<II{len(shape)}q", TYPES[element][1], len(shape), *shape)
            record += _bytes(wire(array))
        record += struct.pack("<I", len(case.outputs))
        record += b"".join(_text(name) for name, _ in case.outputs)
        records.append(record)
    at = 12 + 8 * len(records)
    starts = []
    for record in records:
        starts.append(at)
        at += len(record)
    head = b"umocase1" + struct.pack(f"<I{len(starts)}Q", len(starts), *starts)
    path.write_bytes(head + b"".join(records))


# --- running --------------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        (value,) = struct.unpack_from("<I", self.data, self.at)
        self.at += 4
        return value

    def bytes(self) -> bytes:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at]

    def tensor(self) -> np.ndarray:
        kind = NUMPY[self.number()]
        shape = [self.number() for _ in range(self.number())]
        data = self.bytes()
        if kind is not np.object_:
            return np.frombuffer(data, kind).reshape(shape)
        elements, at = [], 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "little")
            elements.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        made = np.empty(len(elements), np.object_)
        made[:] = elements
        return made.reshape(shape)


def _answer(record: bytes, cases: Sequence[Case]) -> Answer:
    reader = _Reader(record)
    made = Answer(reader.number(), KINDS[reader.number()], reader.bytes().decode(errors="replace"))
    if made.kind == "outputs":
        made.control = [bool(reader.number()) for _ in range(reader.number())]
        count = len(cases[made.index].outputs)
        made.places = [[reader.tensor() for _ in range(count)] for _ in PLACES]
    elif made.kind == "mutated":
        made.runs, made.errors, made.foreign = (reader.number() for _ in range(3))
    return made


def read_answers(path: Path, cases: Sequence[Case]) -> list[Answer]:
    data = path.read_bytes()
    answers, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        answers.append(_answer(data[at + 4 : at + 4 + size], cases))
        at += 4 + size
    return answers


def run(
    cases: Sequence[Case], work: Path, mode: str = "run", options: Sequence[str] = (), **parameters: str
) -> list[Answer]:
    """Has ort_cases do all cases; it is started again behind each one that ends it."""
    packed, answers, models = work / "cases.pack", work / "answers", work / "models"
    pack(cases, packed, **parameters)
    models.mkdir(exist_ok=True)
    answers.unlink(missing_ok=True)
    env = {**os.environ, "UMO_ONNXRUNTIME": str(LIBRARY), "UMO_CALIBRATION": "no-files"}
    first, first_input, said = 0, 0, 0
    while first < len(cases):
        command = [PROGRAM, mode, packed, answers, models, str(first), str(first_input), *options]
        done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, timeout=1800)
        if done.returncode == 0:
            break
        found = read_answers(answers, cases) if answers.exists() else []
        if len(found) == said or found[-1].kind not in ("crashed", "hung"):
            raise RuntimeError(f"ort_cases ended with {done.returncode} and no last words: {done.stderr}")
        said, first, first_input = len(found), found[-1].index, 0
        names = [name for name, _, _ in cases[first].inputs]
        if mode == "mutate" and found[-1].words[0] in names[:-1]:
            first_input = names.index(found[-1].words[0]) + 1
        else:
            first += 1
    return read_answers(answers, cases)


def _readable(case: Case) -> tuple[bytes, list[str]]:
    """The model with outputs that the binding can hand to NumPy: bfloat16 widened, which loses nothing."""
    model = onnx.load_from_string(case.model)
    names = [name for name, _ in case.outputs]
    wide = [i for i, (_, array) in enumerate(case.outputs) if array.dtype == ml_dtypes.bfloat16]
    for i in wide:
        widened = f"{names[i]}_widened"
        model.graph.node.append(helper.make_node("Cast", [names[i]], [widened], to=TensorProto.FLOAT))
        model.graph.output.append(helper.make_tensor_value_info(widened, TensorProto.FLOAT, None))
        names[i] = widened
    return (model.SerializeToString() if wide else case.model), names


def alone(case: Case) -> list[np.ndarray] | str:
    """The engine's own answer, on private memory; its words when it has none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    model, names = _readable(case)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        fed = {name: _ort_value(array, element) for name, element, array in case.inputs}
        values = session.run_with_ort_values(names, fed)
        return [_numpy(value, array.dtype) for value, (_, array) in zip(values, case.outputs, strict=True)]
    except Exception as problem:  # the binding raises its own kinds
        return str(problem)


def _ort_value(array: np.ndarray, element: int) -> Any:
    if element == TensorProto.BFLOAT16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), element)
    if element == TensorProto.STRING:
        text = np.empty(array.size, np.object_)
        text[:] = [e.decode() for e in array.ravel()]
        array = text.reshape(array.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _numpy(value: Any, kind: np.dtype) -> np.ndarray:
    array = value.numpy()
    if kind == ml_dtypes.bfloat16:
        return array.astype(kind)
    if kind == np.object_:
        encoded = np.empty(array.size, np.object_)
        encoded[:] = [str(e).encode() for e in array.ravel()]
        return encoded.reshape(array.shape)
    return array
