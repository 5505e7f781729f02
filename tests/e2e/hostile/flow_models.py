"""Models whose requests are more than one tensor and one answer: sequences with a state, streams, ragged batches.

Each delay line (`lines`) answers a step with what the step before brought, so an answer tells whose state it was.
"""

from __future__ import annotations

import json
from pathlib import Path

from umo.models.onnx_graph import FLOAT, Graph

STEP = 1024  # floats of a step of a sequence, and of its state
RESPONSES = 4  # of a streaming model to each request
ROWS = 4
LINES = ("line", "line_slots", "line_onnx")
STREAMS = ("stream", "stream_rows")
RAGGED = ("ragged", "ragged_as_it_comes")
SIDE = ("line_words", "line_off", "endless")  # attacked, and nothing that the neighbour uses
# A neighbour on a busy machine must not lose its sequence, and what the attacker never ends must go at last.
IDLE_US = 5_000_000


def _io(list_: str, name: str, kind: str, dims: str, more: str = "") -> str:
    return f'{list_} [ {{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ] {more} }} ]\n'


def _parameters(**parameters: object) -> str:
    text = ""
    for key, value in parameters.items():
        said = value if isinstance(value, str) else json.dumps(value)
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(said)} }} }}\n"
    return text


def _state(kind: str, dims: str) -> str:
    return (
        f'state [ {{ input_name: "PAST" output_name: "FUTURE" data_type: TYPE_{kind} dims: [ {dims} ] '
        f'initial_state {{ name: "zero" data_type: TYPE_{kind} dims: [ {dims} ] zero_data: true }} }} ]'
    )


_READY = 'control_input [ { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } ] } ]'


def _sequence(backend: str, strategy: str, *, kind: str = "FP32", dims: str = str(STEP), batch: int = ROWS) -> str:
    return (
        f'backend: "{backend}"\nmax_batch_size: {batch}\n'
        + _io("input", "IN", kind, dims)
        + _io("output", "OUT", kind, dims)
        + "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        + f"sequence_batching {{ max_sequence_idle_microseconds: {IDLE_US} {strategy} {_state(kind, dims)} }}\n"
    )


def _stream(batch: int, repeat: int, pause_us: int) -> str:
    text = f'backend: "umo_identity"\nmax_batch_size: {batch}\n'
    text += _io("input", "IN", "FP32", "-1") + _io("output", "OUT", "FP32", "-1")
    text += "instance_group [ { kind: KIND_CPU count: 1 } ]\nmodel_transaction_policy { decoupled: true }\n"
    if batch > 0:
        text += "dynamic_batching { max_queue_delay_microseconds: 500 }\n"
    return text + _parameters(repeat=str(repeat), response_delay_us=str(pause_us), response_slots="8")


def _ragged(unified: dict[str, object]) -> str:
    text = 'backend: "umo_identity"\nmax_batch_size: 16\n'
    text += _io("input", "INPUT0", "FP32", "-1", "allow_ragged_batch: true") + _io("output", "OUTPUT0", "FP32", "-1")
    text += (
        'batch_output [ { target_name: "OUTPUT0" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "INPUT0" } ]\n'
        'batch_input [ { kind: BATCH_ELEMENT_COUNT target_name: "INPUT1" data_type: TYPE_INT32 '
        'source_input: "INPUT0" } ]\n'
        'output [ { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 1 ] reshape: { shape: [] } } ]\n'
        "instance_group [ { kind: KIND_CPU count: 2 } ]\ndynamic_batching { max_queue_delay_microseconds: 500 }\n"
    )
    return text + _parameters(unified_memory=unified)


def _line() -> bytes:
    """OUT is the state, and the state becomes the input: the delay line again, by ONNX Runtime."""
    g = Graph("line")
    g.input("IN", FLOAT, ["batch", STEP])
    g.input("PAST", FLOAT, ["batch", STEP])
    g.op("Identity", "PAST", to="OUT")
    g.op("Identity", "IN", to="FUTURE")
    g.output("OUT", FLOAT, ["batch", STEP])
    g.output("FUTURE", FLOAT, ["batch", STEP])
    return g.model().SerializeToString()


def write(repository: Path) -> None:
    """Fills a model repository."""
    line = _parameters(sources="OUT=PAST,FUTURE=IN")
    oldest = "oldest { max_candidate_sequences: 64 max_queue_delay_microseconds: 500 }"
    texts = {
        "line": _sequence("umo_identity", oldest) + line,
        # The neighbour's two sequences and whatever the attacker gets: the others wait their turn.
        "line_slots": _sequence("umo_identity", "direct { } " + _READY, batch=16) + line,
        "line_onnx": _sequence("umo_onnxruntime", oldest),
        "line_words": _sequence("umo_identity", "direct { } " + _READY, kind="STRING", dims="2", batch=16) + line,
        "line_off": _sequence("umo_identity", oldest) + line + _parameters(unified_memory={"enable": False}),
        "stream": _stream(0, RESPONSES, 500),
        "stream_rows": _stream(ROWS, RESPONSES, 0),
        "endless": _stream(0, 100_000, 200),
        "ragged": _ragged({}),
        "ragged_as_it_comes": _ragged({"batch_optimization": False}),
    }
    for name, text in texts.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text)
    (repository / "line_onnx" / "1" / "model.onnx").write_bytes(_line())
