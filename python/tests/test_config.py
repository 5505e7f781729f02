"""Model configurations: what is wrong is found with its place, and what is right is converted without loss."""

import json
import random
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from umo.config import ConfigError, check, convert, find_models, read
from umo.config.fields import PATTERNS, check_object
from umo.config.model import KEY, parse_json
from umo.config.textform import Reader, TextError, plain

EXAMPLES = Path(__file__).parents[2] / "examples" / "models"
ROWS = json.loads((Path(__file__).parent / "unified_rows.json").read_text())

MISSION = """{
    "name": "my_model",
    "backend": "pytorch",
    "optimization": {
        "unified_memory": {
            "enable": true,
            "batch_optimization": true,
            "zero_copy_threshold": 1048576,
            "tensor_patterns": [
                {"name": "input", "pattern": "cpu_dominant"},
                {"name": "output", "pattern": "gpu_dominant"},
                {"name": "weights", "pattern": "gpu_dominant"}
            ]
        }
    }
}
"""
MISSION_TEXT = """name: "my_model"  # ours
backend: "pytorch"
optimization {
  unified_memory {
    enable: true
    batch_optimization: true
    zero_copy_threshold: 1048576
    tensor_patterns [
      { name: "input", pattern: "cpu_dominant" },
      { name: "output" pattern: GPU_DOMINANT }
    ]
    tensor_patterns { name: "weights" pattern: "gpu_dominant" }
  }
}
max_batch_size: 8
"""


def errors(text: str | bytes, name: str = "config.json") -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [str(problem) for problem in check(read(name, data)) if problem.level == "error"]


def parameter(settings_text: str) -> str:
    value = json.dumps(settings_text)
    return f'backend: "umo_identity"\nparameters {{ key: "{KEY}" value {{ string_value: {value} }} }}\n'


def converted(text: str, name: str = "config.json", **replaced: str) -> str:
    return convert(read(name, text.encode()), replaced)


def server_reads(text: str) -> model_config_pb2.ModelConfig:
    """The server's own message, which has no field for the mission's block."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(("text", "wrong"), ROWS)
def test_each_row_is_judged_as_the_kit_judges_it(text: str, wrong: str | None) -> None:
    found = errors(parameter(text), "config.pbtxt")
    if wrong is None:
        assert found == []
    else:
        # What the kit and this checker word differently stands behind a bar.
        assert any(part in line for line in found for part in [*wrong.split("|"), "twice"]), found


def test_all_problems_are_found_and_not_the_first_one_alone() -> None:
    block = {
        "enable": 1,
        "enabel": True,
        "zero_copy_threshold": -5,
        "tensor_patterns": [{"name": "x", "pattern": "no"}],
    }
    found = errors(json.dumps({"name": "x", "optimization": {KEY: block}}))
    assert len(found) == 4
    assert all("config.json: error: optimization.unified_memory" in line for line in found)


def test_the_missions_example_is_converted_letter_for_letter() -> None:
    model = read("my_model/config.json", MISSION.encode())
    said = check(model, "my_model")
    assert [problem.level for problem in said] == ["warning", "note"]
    assert "'pytorch' does not read unified_memory" in said[0].text
    message = server_reads(convert(model))
    assert (message.name, message.backend) == ("my_model", "pytorch")
    assert json.loads(message.parameters[KEY].string_value) == json.loads(MISSION)["optimization"][KEY]
    assert not message.HasField("optimization")


def test_its_text_form_is_edited_and_nothing_else_touched() -> None:
    text = converted(MISSION_TEXT, "config.pbtxt", pytorch="umo_onnxruntime")
    assert text.startswith('name: "my_model"  # ours\nbackend: "umo_onnxruntime"\nmax_batch_size: 8\nparameters {')
    message = server_reads(text)
    assert json.loads(message.parameters[KEY].string_value) == json.loads(MISSION)["optimization"][KEY]


def test_a_backend_is_replaced_only_where_the_settings_are() -> None:
    assert 'backend: "umo_onnxruntime"' in converted(
        '{"backend": "onnxruntime", "optimization": {"unified_memory": {}}}'
    )
    assert 'backend: "onnxruntime"' in converted('{"backend": "onnxruntime"}')
    text = 'platform: "onnxruntime_onnx"\noptimization { priority: PRIORITY_MAX unified_memory {} }\n'
    message = server_reads(converted(text, "config.pbtxt"))
    assert (message.backend, message.platform) == ("umo_onnxruntime", "")
    assert message.optimization.priority == 1
    assert converted('platform: "onnxruntime_onnx"\n', "config.pbtxt") == 'platform: "onnxruntime_onnx"\n'


def test_lines_are_those_of_the_file() -> None:
    text = MISSION_TEXT.replace("GPU_DOMINANT", '"gpu_dominnt"').replace(
        "batch_optimization: true", "batch_optimization: 3"
    )
    found = errors(text, "config.pbtxt")
    assert found[0].startswith("config.pbtxt:6: error: optimization.unified_memory.batch_optimization is an integer")
    assert found[1].startswith("config.pbtxt:10: error: optimization.unified_memory.tensor_patterns[1].pattern")
    found = errors(MISSION_TEXT.replace("max_batch_size", "max_batch_sise"), "config.pbtxt")
    assert found[0].startswith("config.pbtxt:15: error:") and found[0].endswith("did you mean max_batch_size?")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("config.json", b"\xff{}", "is not UTF-8: byte 0xff"),
        ("config.pbtxt", b'name: "a"\nbackend: "\xc3("\n', ":2: error: is not UTF-8"),
        ("config.pbtxt", rb'optimization { unified_memory { device: "\377" } }', "a string that is not UTF-8"),
        ("config.json", b"", "is not JSON"),
        ("config.json", b"[]", "is an array; write an object"),
        ("config.json", b'{"optimization": {"unified_memory": 5}}', "optimization.unified_memory is an integer"),
        ("config.json", b'{"optimization": []}', "optimization"),
        ("config.json", b'{"name": "a", "name": "b"}', "name is written twice"),
        ("config.json", b'{"input": [{"name": "a", "dims": [1], "dims": [2]}]}', "input[0].dims is written twice"),
        ("config.json", b'{"max_batch_size": NaN}', "NaN is no number"),
        ("config.json", b'{"max_batch_size": 99999999999999999999999}', "max_batch_size|maxBatchSize"),
        ("config.json", b'{"max_batch_size": "many"}', "max_batch_size|maxBatchSize"),
        ("config.json", b'{"optimization": {"unified_memory": {"device": "\\ud800"}}}', "half of a surrogate pair"),
        ("config.json", b'{"a":' * 10000, "nested too deeply"),
        ("config.pbtxt", b"optimization {" * 10000, "levels of braces"),
        ("config.pbtxt", b'parameters { key: "unified_memory" value { string_value: "' + b"[" * 100000 + b'" } }',
         "nested too deeply"),
        ("config.pbtxt", b"optimization { unified_memory { enable: true }", "a field's name expected, not the end"),
        ("config.pbtxt", b'name: "a', "unexpected"),
        ("config.pbtxt", b"name: ", "a value expected, not the end"),
        ("config.pbtxt", b"optimization { unified_memory {} unified_memory {} }", "is written twice"),
        ("config.pbtxt", b'parameters { key: "a" value {} }\nparameters [ { key: "b" }, { key: "a" value {} } ]',
         ":2: error: parameters['a'] is written twice"),
        ("config.pbtxt", b"optimization { unified_memory { enable: true enable: true } }", "enable is written twice"),
        ("config.json", b'{"optimization": {"unified_memory": {}}, '
         b'"parameters": {"unified_memory": {"string_value": "{}"}}}',
         "is written 2 times (mission, parameter)"),
        ("config.pbtxt", b'optimization { execution_accelerators { cpu_execution_accelerator { name: "unified_memory" '
         b'parameters { key: "enable" value: "maybe" } } } }',
         "execution_accelerators: unified_memory.enable is a string"),
    ],
)  # fmt: skip
def test_bad_files_are_named(name: str, data: bytes, says: str) -> None:
    found = errors(data, name)
    assert any(part in line for line in found for part in says.split("|")), found


def test_an_accelerator_s_strings_are_read_as_what_they_say() -> None:
    text = (
        'backend: "umo_identity" optimization { execution_accelerators { '
        'cpu_execution_accelerator { name: "unified_memory" parameters { key: "enable" value: "false" } '
        'parameters { key: "zero_copy_threshold" value: "77" } '
        'parameters { key: "device" value: "opencl:1" } } } }'
    )
    model = read("config.pbtxt", text.encode())
    assert check(model) == []
    assert model.settings == {"enable": False, "zero_copy_threshold": 77, "device": "opencl:1"}
    assert convert(model) == text


def test_names_that_nobody_has_are_warned_of() -> None:
    config = {
        "backend": "umo_identity",
        "input": [{"name": "PIXELS", "data_type": "TYPE_FP32", "dims": [1]}],
        "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [1]}],
        "optimization": {KEY: {"tensor_patterns": [{"name": "PIXEL", "pattern": "unknown"}]}},
    }
    said = [
        problem for problem in check(read("config.json", json.dumps(config).encode())) if problem.level == "warning"
    ]
    assert len(said) == 1 and "'PIXEL' is no tensor of this model" in said[0].text


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/config.pbtxt")), ids=lambda file: file.parent.name)
def test_the_examples_are_right_and_left_alone(file: Path) -> None:
    model = read(file)
    assert not [problem for problem in check(model, file.parent.name) if problem.level != "note"]
    assert convert(model) == file.read_text()


def test_the_folders_name_counts() -> None:
    assert any(p.path == "name" and p.level == "error" for p in check(read("config.json", b'{"name": "a"}'), "b"))
    assert not check(read("config.json", b"{}"), "b")


def test_models_of_a_folder(tmp_path: Path) -> None:
    for name, files in {
        "a": ["config.pbtxt"],
        "b": ["config.json", "config.pbtxt"],
        "c": [],
        ".hidden": ["config.json"],
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}" if file.endswith("json") else "")
    (tmp_path / "README").write_text("")
    found = {model.name: model for model in find_models(tmp_path)}
    assert list(found) == ["a", "b", "c"]
    assert found["b"].config == tmp_path / "b" / "config.pbtxt" and found["b"].ignored == tmp_path / "b" / "config.json"
    assert found["c"].config is None
    assert [model.name for model in find_models(tmp_path / "a")] == ["a"]


# --- properties -----------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
SIZES = st.one_of(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 2).map(str))
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "enable": st.booleans(),
        "batch_optimization": st.booleans(),
        "trusted_clients": st.booleans(),
        "profiling": st.booleans(),
        "enable_numa_optimization": st.booleans(),
        "zero_copy_threshold": st.one_of(SIZES, st.just("auto")),
        "device": st.sampled_from(["opencl", "opencl:0", "metal:12", "cuda:1023"]),
        "cache_line_size": st.integers(0, 12).map(lambda bits: 1 << bits),
        "tensor_patterns": st.lists(
            st.fixed_dictionaries({"name": NAMES, "pattern": st.sampled_from(PATTERNS)}),
            max_size=4,
            unique_by=lambda entry: entry["name"],
        ),
        "pool_config": st.fixed_dictionaries(
            {}, optional={"small_buffer_size": st.integers(1, 1 << 30), "large_buffer_count": st.integers(0, 1 << 20)}
        ),
    },
)
MODELS = st.fixed_dictionaries(
    {"backend": st.sampled_from(["umo_identity", "onnxruntime", "pytorch", ""])},
    optional={
        "name": NAMES,
        "max_batch_size": st.integers(0, 2**31 - 1),
        "input": st.lists(
            st.fixed_dictionaries(
                {"name": NAMES, "data_type": st.just("TYPE_FP32"), "dims": st.lists(st.integers(-1, 2**40), max_size=3)}
            ),
            max_size=2,
        ),
        "parameters": st.dictionaries(
            NAMES.filter(lambda name: name != KEY), st.fixed_dictionaries({"string_value": NAMES})
        ),
    },
)


def text_value(value: object, rng: random.Random) -> str:
    """A value in the text form, in one of the ways that it may be written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        quote = rng.choice("\"'")
        return (
            quote + value.encode("unicode_escape").decode().replace(quote, "\\" + quote) + quote
            if value.isascii()
            else (json.dumps(value, ensure_ascii=False))
        )
    if isinstance(value, dict):
        begin, end = rng.choice(["{}", "<>"])
        between = rng.choice([" ", "\n", ", ", "; ", " # why\n"])
        return begin + " " + between.join(text_field(k, v, rng) for k, v in value.items() if v != []) + " " + end
    return str(value)


def text_field(name: str, value: object, rng: random.Random) -> str:
    if isinstance(value, list):
        if rng.random() < 0.5:
            return f"{name}{rng.choice(['', ':'])} [ {', '.join(text_value(entry, rng) for entry in value)} ]"
        return " ".join(f"{name} {text_value(entry, rng)}" for entry in value)
    return f"{name}{'' if isinstance(value, dict) and rng.random() < 0.5 else ':'} {text_value(value, rng)}"


@given(MODELS, OBJECTS)
@settings(deadline=None, max_examples=50)
def test_json_converts_without_loss_and_once(model: dict, block: dict) -> None:
    text = converted(json.dumps({**model, "optimization": {KEY: block}}))
    message = server_reads(text)
    assert parse_json(message.parameters[KEY].string_value) == block
    again = read("config.pbtxt", text.encode())
    assert again.settings == block and again.form == "parameter"
    assert convert(again) == text
    del message.parameters[KEY]
    message.backend = model["backend"]
    bare = server_reads(converted(json.dumps(model)))
    assert message == bare


@given(OBJECTS, st.integers(0, 2**32), st.sampled_from(["", "# a comment\n", 'name: "x"\n']), st.booleans())
@settings(deadline=None, max_examples=50)
def test_the_text_form_says_the_same_as_json(block: dict, seed: int, before: str, alone: bool) -> None:
    rng = random.Random(seed)
    inner = text_field(KEY, block, rng)
    more = "" if alone else " priority: PRIORITY_MIN "
    text = f'{before}optimization {{{more}{inner}{more and " eager_batching: true"} }}\nbackend: "umo_identity"'
    model = read("config.pbtxt", text.encode())
    assert not [p for p in check(model) if p.level == "error"], (text, model.problems)
    # An empty repeated field is not written at all in this form.
    assert model.settings == {k: v for k, v in block.items() if v != []} or model.settings == block
    out = convert(model)
    message = server_reads(out)
    assert parse_json(message.parameters[KEY].string_value) == model.settings
    assert message.optimization.eager_batching == (not alone)
    assert before in out
    assert convert(read("config.pbtxt", out.encode())) == out


@given(
    st.binary(max_size=60)
    | st.text(alphabet="{}[]<>:,;\"'\\#ab unified_memory optimization 0.-\n", max_size=80).map(str.encode)
)
@settings(deadline=None, max_examples=200)
def test_no_bytes_are_too_strange(data: bytes) -> None:
    for name in ("config.json", "config.pbtxt", "other"):
        model = read(name, data)
        said = check(model, "folder")
        try:
            convert(model)
        except ConfigError as error:
            assert any(problem.level == "error" for problem in [*said, *error.problems])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "enable",
                        "zero_copy_threshold",
                        "device",
                        "tensor_patterns",
                        "pool_config",
                        "name",
                        "pattern",
                        "small_buffer_size",
                    ]
                )
                | st.text(max_size=4),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
@settings(deadline=None, max_examples=100)
def test_any_value_is_judged(value: object) -> None:
    for found in check_object(value):
        assert found.path.startswith(KEY) and found.text and "\n" not in found.text


def test_the_text_reader_takes_what_protobuf_writes() -> None:
    text = """a: 1 b: -2 c: 0x1F d: 1.5e3 e: inf f: "x" 'y' "\\n\\101" g { h: true; i: OFF }
        j < k: [1, 2] > [ext.name]: 3 l: 017"""
    tree = plain(Reader(text).document())
    assert tree == {
        "a": 1, "b": -2, "c": 31, "d": 1500.0, "e": "inf", "f": "xy\nA", "g": {"h": True, "i": "off"},
        "j": {"k": [1, 2]}, "[ext.name]": 3, "l": 15,
    }  # fmt: skip
    for bad in ("a", "a 1", "a: }", "a: {", "a: [1", "a: [1 2]", 'a: "', "a: $", "}", "a: < }"):
        with pytest.raises(TextError):
            Reader(bad).document()
