"""`umo config` from the command line: where it writes, what it says, how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from umo.cli import app

BLOCK = '{"optimization": {"unified_memory": {"enable": true}}, "backend": "%s"}'


def umo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, backend in (("a", "onnxruntime"), ("b", "umo_identity")):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(BLOCK % backend)
    return tmp_path / "models"


def spoil(repository: Path) -> None:
    (repository / "b" / "config.json").write_text('{"optimization": {"unified_memory": {"enabel": 1}}}')


def test_check_ends_with_0_1_or_2(repository: Path) -> None:
    good = umo("config", "check", repository)
    assert good.exit_code == 0 and "2 configurations: 3 notes" in good.stdout
    assert "a/config.json: note: backend 'onnxruntime'" in good.stderr
    spoil(repository)
    bad = umo("config", "check", repository, repository / "a")
    assert bad.exit_code == 1 and "3 configurations: 1 error" in bad.stdout
    assert "b/config.json: error: optimization.unified_memory has no field 'enabel'; did you mean enable?" in bad.stderr
    for wrong in ([], [repository / "nothing"], [repository.parent / "models" / "a" / "none"], ["--what", repository]):
        assert umo("config", "check", *wrong).exit_code == 2
    (repository.parent / "empty").mkdir()
    empty = umo("config", "check", repository.parent / "empty")
    assert empty.exit_code == 2 and "no config.pbtxt and no config.json" in empty.stderr


def test_check_says_it_in_json(repository: Path) -> None:
    spoil(repository)
    said = json.loads(umo("config", "check", repository / "b", "--json").stdout)
    assert said["files"] == 1 and said["ok"] is False
    assert said["problems"][0]["path"] == "optimization.unified_memory"
    assert said["problems"][0]["file"].endswith("b/config.json")


def test_convert_writes_to_the_screen_a_file_or_a_folder(repository: Path, tmp_path: Path) -> None:
    one = umo("config", "convert", repository / "a" / "config.json")
    assert one.exit_code == 0 and 'backend: "umo_onnxruntime"' in one.stdout
    assert umo("config", "convert", repository / "a").stdout == one.stdout
    assert umo("config", "convert", repository / "a", "--output", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "a" / "config.pbtxt").read_text() == one.stdout
    file = tmp_path / "deep" / "new.pbtxt"
    assert umo("config", "convert", repository / "a" / "config.json", "--output", file).exit_code == 0
    assert file.read_text() == one.stdout
    everything = umo("config", "convert", repository)
    assert everything.exit_code == 2 and "2 models; say where to with --output" in everything.stderr
    assert umo("config", "convert", repository, "--output", tmp_path / "all").exit_code == 0
    assert {path.parent.name for path in (tmp_path / "all").rglob("*.pbtxt")} == {"a", "b"}
    assert umo("config", "convert", repository, "--output", file).exit_code == 2


def test_what_is_converted_in_its_own_place_is_converted_once(repository: Path) -> None:
    assert umo("config", "convert", repository, "--output", repository).exit_code == 0
    first = (repository / "a" / "config.pbtxt").read_text()
    again = umo("config", "convert", repository, "--output", repository)
    assert again.exit_code == 0 and (repository / "a" / "config.pbtxt").read_text() == first
    assert not [path for path in (repository / "a").iterdir() if path.name.startswith(".")]
    checked = umo("config", "check", repository)
    assert checked.exit_code == 0 and "config.json: warning: is ignored: config.pbtxt counts" in checked.stderr


def test_convert_writes_what_is_right_and_names_the_rest(repository: Path, tmp_path: Path) -> None:
    spoil(repository)
    ended = umo("config", "convert", repository, "--output", tmp_path / "all")
    assert ended.exit_code == 1 and "b/config.json: error" in ended.stderr
    assert [path.parent.name for path in (tmp_path / "all").rglob("*.pbtxt")] == ["a"]
    said = json.loads(umo("config", "convert", repository, "--json").stdout)
    assert [made["file"].split("/")[-2] for made in said["converted"]] == ["a"] and said["problems"]


def test_a_backend_is_named_by_the_user(repository: Path) -> None:
    ended = umo("config", "convert", repository / "b", "--backend", "umo_identity=umo_kernel")
    assert 'backend: "umo_kernel"' in ended.stdout
    for bad in ("umo_kernel", "=x", "x="):
        assert umo("config", "convert", repository / "b", "--backend", bad).exit_code == 2


def test_the_module_is_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "umo", "config", "--help"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and "check" in ended.stdout and "convert" in ended.stdout
    ended = subprocess.run(
        [sys.executable, "-m", "umo", "prove", "--help"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and "--expect-zero" in ended.stdout


def test_the_command_starts_without_what_it_does_not_need() -> None:
    program = (
        "import sys, umo.cli; print(sorted({'numpy', 'tritonclient', 'google.protobuf', 'grpc'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
