"""One model's configuration: read in any of its forms, judged, and written as the real server takes it.

A configuration is `config.pbtxt` (protobuf's text form) or `config.json`, the mission's. Both may have the mission's
`optimization.unified_memory`, which the server refuses; converted, the same object is the parameter `unified_memory`,
which it hands to the backend. A text is edited where it must be and left alone elsewhere, so that its comments survive
and converting it again changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .fields import GROUPS, Duplicates, check_object, kind_of, pattern_names, quote, suggest
from .textform import Block, Node, Reader, TextError, plain

KEY = "unified_memory"
NAMES = ("config.pbtxt", "config.json")
_BYTES_MAX = 16 << 20
_REPEATED = frozenset({"tensor_patterns"})

# Whose settings the kit reads, and which official backends they stand in for.
OWN_BACKENDS = ("umo_identity", "umo_kernel", "umo_onnxruntime")
REPLACES = {"onnxruntime": "umo_onnxruntime"}
_PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
    "tensorrt_plan": "tensorrt",
}


@dataclass(frozen=True)
class Problem:
    """Something to say about a configuration. `level` is "error", "warning" or "note"."""

    level: str
    file: str
    path: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.level}: {self.path + ' ' if self.path else ''}{self.text}"


class ConfigError(Exception):
    """A configuration that cannot be converted; `problems` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass
class Model:
    """A configuration that was read."""

    file: str
    text: str | None
    """Of the text form; None for JSON."""
    message: Any
    """The server's own message, without the mission's block; None when it could not be read."""
    settings: Any = None
    """The `unified_memory` object, from wherever it was written."""
    form: str = ""
    """"" for none, "mission", "parameter" or "accelerator"."""
    problems: list[Problem] = field(default_factory=list)
    cut: tuple[int, int] | None = None
    """The part of the text that is the mission's block."""
    document: Block | None = None

    @property
    def failed(self) -> bool:
        """Whether there are errors."""
        return any(problem.level == "error" for problem in self.problems)

    @property
    def backend(self) -> str:
        """The backend, also where only the older `platform` is given."""
        if self.message is None:
            return ""
        return self.message.backend or _PLATFORMS.get(self.message.platform, "")

    def say(self, level: str, path: str, text: str, line: int | None = None) -> None:
        """Adds a problem."""
        self.problems.append(Problem(level, self.file, path, text, line))


@cache
def _message() -> Any:
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2.ModelConfig


def read(file: str | Path, data: bytes | None = None) -> Model:
    """Reads a configuration and finds what is wrong with its form. `data` stands in for the file's bytes."""
    path = Path(file)
    model = Model(str(file), None, None)
    if data is None:
        try:
            with path.open("rb") as stream:
                data = stream.read(_BYTES_MAX + 1)
        except OSError as error:
            model.say("error", "", f"cannot be read: {error.strerror or error}")
            return model
    if len(data) > _BYTES_MAX:
        model.say("error", "", f"has more than {_BYTES_MAX >> 20} MiB: no configuration")
        return model
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        model.say("error", "", f"is not UTF-8: byte 0x{data[error.start]:02x}", data.count(b"\n", 0, error.start) + 1)
        return model
    is_json = path.suffix == ".json" or (path.suffix != ".pbtxt" and text.lstrip()[:1] == "{")
    try:
        _read_json(model, text) if is_json else _read_text(model, text)
        if model.message is not None:
            _find_settings(model)
    except RecursionError:
        model.message, model.form = None, ""
        model.say("error", "", "is nested too deeply")
    return model


# --- JSON -----------------------------------------------------------------------------------------------------------


def _pairs(pairs: list[tuple[str, Any]]) -> Duplicates:
    counts = Counter(name for name, _ in pairs)
    return Duplicates(pairs, [name for name, count in counts.items() if count > 1])


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def parse_json(text: str) -> Any:
    """JSON as the kit reads it: no NaN; keys written twice are remembered. Raises ValueError."""
    return json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)


def _duplicates(value: Any, path: str, model: Model) -> None:
    if isinstance(value, Mapping):
        for name in getattr(value, "twice", ()):
            model.say("error", f"{path}{quote(name)}", "is written twice; write it once")
        for name, entry in value.items():
            if path + name != f"optimization.{KEY}":  # said by check_object
                _duplicates(entry, f"{path}{quote(name)}.", model)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            _duplicates(entry, f"{path[:-1]}[{index}].", model)


def _read_json(model: Model, text: str) -> None:
    from google.protobuf import json_format

    try:
        root = parse_json(text)
    except json.JSONDecodeError as error:
        model.say("error", "", f"is not JSON: {error.msg} at column {error.colno}", error.lineno)
        return
    except ValueError as error:
        model.say("error", "", f"is not JSON: {error}")
        return
    if not isinstance(root, Mapping):
        model.say("error", "", f"is {kind_of(root)}; write an object")
        return
    _duplicates(root, "", model)
    try:
        json.dumps(root, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        model.say("error", "", "has half of a surrogate pair in a string: no text")
        return
    rest = dict(root)
    optimization = rest.get("optimization", {})
    if not isinstance(optimization, Mapping):  # protobuf takes an empty list for an object
        model.say("error", "optimization", f"is {kind_of(optimization)}; write an object")
        return
    if KEY in optimization:
        model.settings, model.form = optimization[KEY], "mission"
        rest["optimization"] = {name: value for name, value in optimization.items() if name != KEY}
        if not rest["optimization"]:
            del rest["optimization"]
    try:
        model.message = json_format.ParseDict(rest, _message()())
    except (json_format.ParseError, TypeError, ValueError) as error:
        model.say("error", "", _protobuf_words(error))


# --- the text form --------------------------------------------------------------------------------------------------


def _protobuf_words(error: Exception) -> str:
    """What protobuf says in one line, with a suggestion for a field that it does not know."""
    words = re.sub(r"^[0-9]+:[0-9]+ : ", "", re.sub(r"\s+", " ", str(error)))
    words = re.sub(r" Available Fields.*", "", words).rstrip(".")
    return f"{words}{_field_hint(words)}"


def _field_hint(words: str) -> str:
    match = re.search(r'type "inference\.([\w.]+)" (?:at "[^"]*" )?has no field named "([^"]+)"', words)
    if match is None:
        return ""
    descriptor = _message().DESCRIPTOR.file.pool.FindMessageTypeByName(f"inference.{match[1]}")
    return suggest(match[2], [entry.name for entry in descriptor.fields])


def _read_text(model: Model, text: str) -> None:
    from google.protobuf import text_format

    try:
        reader = Reader(text)
        model.document = reader.document()
    except TextError as error:
        model.say("error", "", str(error), error.line)
        return
    model.text = text
    _twice_in_map(model, reader)
    blocks = [
        (outer, node)
        for outer in model.document.find("optimization")
        if isinstance(outer.value, Block)
        for node in outer.value.find(KEY)
    ]
    if len(blocks) > 1:
        model.say("error", f"optimization.{KEY}", "is written twice; write it once", reader.line(blocks[1][1].start))
        return
    rest = text
    if blocks:
        outer, node = blocks[0]
        model.settings, model.form = plain(node.value, _REPEATED), "mission"
        model.cut = _whole_lines(text, outer if len(outer.value.nodes) == 1 else node)
        # Blanks in its place: the parser's line numbers stay those of the file.
        blank = re.sub(r"[^\n]", " ", text[model.cut[0] : model.cut[1]])
        rest = text[: model.cut[0]] + blank + text[model.cut[1] :]
    try:
        model.message = text_format.Parse(rest, _message()())
    except text_format.ParseError as error:
        model.say("error", "", _protobuf_words(error), error.GetLine())


def _twice_in_map(model: Model, reader: Reader) -> None:
    """Keys of `parameters` that are written twice: protobuf keeps the last one and says nothing."""
    assert model.document is not None
    seen: set[str] = set()
    for node in model.document.find("parameters"):
        for entry in node.value if isinstance(node.value, list) else [node.value]:
            for key in _inside(entry, "key"):
                if str(key.value) in seen:
                    model.say(
                        "error", f"parameters['{quote(str(key.value))}']", "is written twice", reader.line(key.start)
                    )
                seen.add(str(key.value))


def _whole_lines(text: str, node: Node) -> tuple[int, int]:
    """The node's part of the text, with the lines that hold nothing else."""
    start, end = node.start, node.end
    before = text.rfind("\n", 0, start) + 1
    after = text.find("\n", end)
    after = len(text) if after < 0 else after + 1
    if not text[before:start].strip() and not text[end:after].strip():
        return before, after
    return start, end


# --- what it says ---------------------------------------------------------------------------------------------------


def _find_settings(model: Model) -> None:
    message = model.message
    places = [model.form] if model.form else []
    if KEY in message.parameters:
        places.append("parameter")
    accelerators = [
        entry
        for kind in ("cpu_execution_accelerator", "gpu_execution_accelerator")
        for entry in getattr(message.optimization.execution_accelerators, kind)
        if entry.name == KEY
    ]
    places += ["accelerator"] * len(accelerators)
    if len(places) > 1:
        model.say("error", KEY, f"is written {len(places)} times ({', '.join(places)}); write it once")
        return
    if places == ["parameter"]:
        model.form = "parameter"
        try:
            model.settings = parse_json(message.parameters[KEY].string_value)
        except ValueError as error:
            model.form = ""
            model.say("error", f"parameters['{KEY}']", f"is not JSON: {error}")
    elif places == ["accelerator"]:
        model.form = "accelerator"
        model.settings = {name: _from_text(value) for name, value in accelerators[0].parameters.items()}


def _from_text(value: str) -> Any:
    """An accelerator's values are strings all: what is JSON is meant as JSON."""
    try:
        return parse_json(value)
    except ValueError:
        return value


def _line_of(model: Model, path: str) -> int | None:
    """Where a path of the mission's block stands in a text."""
    if model.text is None or model.document is None or model.form != "mission":
        return None
    names = re.sub(r"\[[0-9]+\]", "", path).split(".")
    nodes = [node for outer in model.document.find(names[0]) for node in _inside(outer.value, names[1])]
    starts = [node.start for node in nodes]
    for name in names[2:3]:
        found = [node for outer in nodes for node in _inside(outer.value, name)]
        entries = [
            entry.start if isinstance(entry, Block) else node.start
            for node in found
            for entry in (node.value if isinstance(node.value, list) else [node.value])
        ]
        index = re.search(r"\[([0-9]+)\]", path)
        starts = entries[int(index[1]) if index else 0 :] or starts
    return model.text.count("\n", 0, starts[0]) + 1 if starts else None


def _inside(value: Any, name: str) -> list[Node]:
    return value.find(name) if isinstance(value, Block) else []


def check(model: Model, folder: str | None = None, replaced: Mapping[str, str] | None = None) -> list[Problem]:
    """Judges a configuration that was read: all its problems, those of its form included.

    folder    the model's name by its folder
    replaced  backends that somebody else stands in for, besides REPLACES
    """
    model = dataclasses.replace(model, problems=list(model.problems))
    where = {"mission": f"optimization.{KEY}", "parameter": KEY, "accelerator": f"execution_accelerators: {KEY}"}
    if model.form:
        for found in check_object(model.settings, where[model.form]):
            model.say("error", found.path, found.text, _line_of(model, found.path))
    if model.message is None:
        return model.problems
    message = model.message
    if folder is not None and message.name and message.name != folder:
        model.say(
            "error", "name", f"is '{quote(message.name)}', but the folder is '{folder}': the server wants one name"
        )
    if not model.form:
        return model.problems
    backend = model.backend
    stand_in = {**REPLACES, **(replaced or {})}.get(backend, backend)
    if not backend:
        model.say("warning", "backend", f"is not given: {KEY} is read by {', '.join(OWN_BACKENDS)}")
    elif stand_in not in OWN_BACKENDS:
        model.say(
            "warning", "backend", f"'{quote(backend)}' does not read {KEY}: umo has {', '.join(OWN_BACKENDS)} instead"
        )
    elif stand_in != backend:
        model.say("note", "backend", f"'{backend}' does not read {KEY}; converted, it is '{stand_in}'")
    if model.form == "mission" and not model.failed:
        model.say(
            "note", where["mission"], "is not taken by a server alone: `umo config convert`, or `umo serve` as it is"
        )
    tensors = {tensor.name for tensor in (*message.input, *message.output)}
    if not model.failed and message.input and message.output:
        for name in pattern_names(model.settings):
            if name not in tensors and name not in GROUPS:
                hint = suggest(name, [*tensors, *GROUPS])
                model.say(
                    "warning",
                    f"{where[model.form]}.tensor_patterns",
                    f"'{quote(name)}' is no tensor of this model, nor {', '.join(GROUPS[:-1])} or {GROUPS[-1]}{hint}",
                )
    return model.problems


# --- and how the server takes it --------------------------------------------------------------------------------------


def convert(model: Model, replaced: Mapping[str, str] | None = None) -> str:
    """The same configuration in the text form, as the real server takes it. Raises ConfigError.

    replaced  backends to exchange, besides REPLACES; only in configurations that have the settings
    """
    from google.protobuf import text_format

    errors = [problem for problem in check(model, replaced=replaced) if problem.level == "error"]
    if errors:
        raise ConfigError(errors)
    backend = model.backend if model.form else ""
    new_backend = {**REPLACES, **(replaced or {})}.get(backend, "")
    if model.text is not None:
        text = _edit(model, new_backend if new_backend != backend else "")
    else:
        message = _message()()
        message.CopyFrom(model.message)
        if new_backend:
            message.backend = new_backend
            message.ClearField("platform")
        if model.form == "mission":
            message.parameters[KEY].string_value = _settings_text(model)
        text = text_format.MessageToString(message, as_utf8=True)
    again = read("converted.pbtxt", text.encode())
    assert not again.failed and again.form != "mission", again.problems
    return text


def _settings_text(model: Model) -> str:
    return json.dumps(model.settings, ensure_ascii=False)


def _edit(model: Model, backend: str) -> str:
    """The text with the block moved and the backend exchanged, and nothing else touched."""
    assert model.text is not None and model.document is not None
    edits: list[tuple[int, int, str]] = []
    tail = ""
    if model.cut is not None:
        edits.append((*model.cut, ""))
        value = _text_string(_settings_text(model))
        tail = f'parameters {{ key: "{KEY}" value {{ string_value: {value} }} }}\n'
    if backend:
        named = model.document.find("backend")
        for node in model.document.find("platform"):
            edits.append((*_whole_lines(model.text, node), ""))
        if named:
            edits.append((named[-1].start, named[-1].end, f'backend: "{backend}"'))
        else:
            tail = f'backend: "{backend}"\n{tail}'
    text = model.text
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    if tail and text and not text.endswith("\n"):
        text += "\n"
    return text + tail


def _text_string(value: str) -> str:
    """A string of the text form, in the quotes that need fewer escapes."""
    quoted = "'" if "'" not in value else '"'
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
    return quoted + (escaped if quoted == "'" else escaped.replace('"', '\\"')) + quoted
