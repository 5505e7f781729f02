"""What `umo serve` decides before it starts a server."""

from pathlib import Path

import pytest

from umo.overlay import Overlay
from umo.serve import Serving, backend_folders, join_backends, settings_of
from umo.server import ServerError


def backends(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


def test_backends_are_those_named_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = backends(tmp_path / "named", "umo_kernel")
    first = backends(tmp_path / "first", "umo_kernel", "umo_identity")
    second = backends(tmp_path / "second", "umo_identity", "python")
    monkeypatch.setenv("UMO_BACKENDS", f"{first}:{tmp_path / 'none'}:{second}")
    places = backend_folders([named])
    assert places[:3] == [named, first, second]
    found = join_backends(tmp_path / "joined", places)
    assert found["umo_kernel"] == named / "umo_kernel" and found["umo_identity"] == first / "umo_identity"
    assert (tmp_path / "joined" / "python").resolve() == second / "python"


def test_nothing_is_started_without_backends_of_umo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setattr("umo.serve.backend_folders", lambda named: [backends(tmp_path / "others", "python")])
    with pytest.raises(ServerError, match="no backends of umo"):
        Serving([tmp_path / "models"]).run()


def test_ports_of_the_server_s_options_are_known(tmp_path: Path) -> None:
    serving = Serving([tmp_path], options=["--http-port=9000", "--metrics-port=9002"], ports=(1, 2, 3))
    assert serving._ports == (9000, 2, 9002)
    with pytest.raises(ServerError, match="a port is a number: 9x"):
        Serving([tmp_path], options=["--grpc-port=9x"])


def test_what_is_said_of_a_model(tmp_path: Path) -> None:
    block = '{"backend": "%s", "optimization": {"unified_memory": {"enable": %s, "zero_copy_threshold": 5}}}'
    for name, text in {
        "on": block % ("umo_identity", "true"),
        "off": block % ("onnxruntime", "false"),
        "other": block % ("pytorch", "true"),
        "plain": '{"backend": "umo_kernel"}',
    }.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text(text)
    (tmp_path / "models" / "bare").mkdir()
    with Overlay([tmp_path / "models"], parent=tmp_path) as overlay:
        said = {name: settings_of(served) for (_, name), served in overlay.models.items()}
    assert {name: (one["backend"], one["unified_memory"]) for name, one in said.items()} == {
        "on": ("umo_identity", True),
        "off": ("umo_onnxruntime", False),
        "other": ("pytorch", None),
        "plain": ("umo_kernel", True),
        "bare": ("", None),
    }
    assert said["on"]["settings"] == {"enable": True, "zero_copy_threshold": 5} and said["other"]["settings"] == {}
