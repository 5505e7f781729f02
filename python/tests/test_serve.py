"""What `umo serve` decides before it starts a server."""

import os
import socket
from pathlib import Path

import pytest

from umo import ports
from umo.overlay import Overlay
from umo.serve import NothingToServe, Serving, WrongOption, backend_folders, join_backends, settings_of
from umo.server import ServerError, free_ports


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
    (tmp_path / "models" / "one" / "1").mkdir(parents=True)
    with pytest.raises(ServerError, match="no backends of umo found; run"):
        Serving([tmp_path / "models"]).run()


def test_ports_of_the_server_s_options_are_known(tmp_path: Path) -> None:
    serving = Serving([tmp_path], options=["--http-port=9000", "--metrics-port=9002"], ports=(1, 2, 3))
    assert serving._ports == (9000, 2, 9002)
    with pytest.raises(WrongOption, match="a port is a number: 9x"):
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


def test_a_port_in_use_names_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    free, other = free_ports(2)
    ports.check([("http", "127.0.0.1", free), ("grpc", "127.0.0.1", other), ("metrics", "no.such.host.invalid", 1)])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        name = Path("/proc/self/comm").read_text().strip()
        assert ports.holder(port) == f"process {os.getpid()} ({name})"
        with pytest.raises(ports.PortError, match=rf"port {port} is taken by process {os.getpid()} .*--grpc-port N"):
            ports.check([("grpc", "127.0.0.1", port)])
        # A socket of somebody whose descriptors we may not see.
        monkeypatch.setattr(Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError()))
        assert ports.holder(port) == "a process of another user or container"
    assert ports.holder(port) == ""
    with pytest.raises(ports.PortError, match="both 7; give each its own"):
        ports.check([("http", "127.0.0.1", 7), ("metrics", "127.0.0.1", 7)])
    with pytest.raises(ports.PortError, match="no address of this machine"):
        ports.check([("http", "192.0.2.1", free)])


def test_an_empty_repository_is_said_unless_models_may_still_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with Overlay([tmp_path], parent=tmp_path.parent) as overlay:
        with pytest.raises(NothingToServe, match="no model in .*umo example"):
            Serving([tmp_path])._check_models(overlay)
        options = ["--model-control-mode=poll"]
        Serving([tmp_path], options=options, say=lambda problem: said.append(str(problem)))._check_models(overlay)
        assert "no model yet" in said[0]
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(NothingToServe, match="cannot be read"):
            Serving([tmp_path])._check_models(overlay)
