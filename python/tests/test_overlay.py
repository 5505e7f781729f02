"""The overlay that `umo serve` gives a server: links, converted configurations, and nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from umo.overlay import Overlay, remove_abandoned, start_time

PLAIN = 'name: "plain"\nbackend: "python"\n'
BLOCK = '{"name": "%s", "backend": "umo_identity", "optimization": {"unified_memory": {"enable": %s}}}'


def add(repository: Path, name: str, config: str | None, file: str = "config.json") -> Path:
    (repository / name / "1").mkdir(parents=True, exist_ok=True)
    (repository / name / "1" / "model.bin").write_text(name)
    (repository / name / "labels.txt").write_text("a\n")
    if config is not None:
        (repository / name / file).write_text(config)
    return repository / name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    add(tmp_path / "source", "plain", PLAIN, "config.pbtxt")
    add(tmp_path / "source", "bare", None)
    add(tmp_path / "source", "mission", BLOCK % ("mission", "true"))
    return tmp_path / "source"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def snapshot(folder: Path) -> dict[str, object]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_what_a_server_takes_is_linked_and_the_rest_converted(source: Path, place: Path) -> None:
    before = snapshot(source)
    with Overlay([source], parent=place) as overlay:
        root = overlay.repositories[0]
        assert sorted(path.name for path in root.iterdir()) == ["bare", "mission", "plain"]
        assert (root / "plain").readlink() == source / "plain" and (root / "bare").is_symlink()
        made = root / "mission"
        assert not made.is_symlink()
        assert sorted(path.name for path in made.iterdir()) == ["1", "config.pbtxt", "labels.txt"]
        assert (made / "1").readlink() == source / "mission" / "1"
        assert 'key: "unified_memory"' in (made / "config.pbtxt").read_text()
        assert oct(overlay.root.stat().st_mode & 0o777) == "0o700"
    assert list(place.iterdir()) == []
    assert snapshot(source) == before


def test_it_follows_the_source(source: Path, place: Path) -> None:
    with Overlay([source], parent=place) as overlay:
        root = overlay.repositories[0]
        assert overlay.sync() == []
        inode = (root / "mission").stat().st_ino
        add(source, "mission", BLOCK % ("mission", "false"))
        (source / "mission" / "2").mkdir()
        (source / "mission" / "labels.txt").unlink()
        add(source, "new", BLOCK % ("new", "true"))
        add(source, "plain", BLOCK % ("plain", "true"))
        (source / "plain" / "config.pbtxt").unlink()
        (source / "bare" / "1" / "model.bin").unlink()
        (source / "bare" / "1").rmdir()
        (source / "bare" / "labels.txt").unlink()
        (source / "bare").rmdir()
        overlay.sync()
        assert sorted(path.name for path in root.iterdir()) == ["mission", "new", "plain"]
        # The folder that the server knows stays; what is in it is exchanged file by file.
        assert (root / "mission").stat().st_ino == inode
        assert sorted(path.name for path in (root / "mission").iterdir()) == ["1", "2", "config.pbtxt"]
        assert "false" in (root / "mission" / "config.pbtxt").read_text()
        assert not (root / "plain").is_symlink() and (root / "plain" / "config.pbtxt").exists()
        add(source, "plain", PLAIN, "config.pbtxt")
        (source / "plain" / "config.json").unlink()
        overlay.sync()
        assert (root / "plain").is_symlink()


def test_a_configuration_that_turns_bad_leaves_its_model_as_it_was(source: Path, place: Path) -> None:
    with Overlay([source], parent=place) as overlay:
        root = overlay.repositories[0]
        good = (root / "mission" / "config.pbtxt").read_text()
        add(source, "mission", BLOCK % ("mission", "3"))
        add(source, "never", BLOCK % ("never", "3"))
        said = [problem for problem in overlay.sync() if problem.level == "error"]
        assert [problem.path for problem in said] == ["optimization.unified_memory.enable"] * 2
        assert (root / "mission" / "config.pbtxt").read_text() == good
        assert not (root / "never").exists()
        assert overlay.sync() == [], "it is said once"
        add(source, "never", BLOCK % ("never", "true"))
        overlay.sync()
        assert (root / "never" / "config.pbtxt").exists()


def test_several_repositories_may_have_one_name(source: Path, tmp_path: Path, place: Path) -> None:
    add(tmp_path / "other", "mission", BLOCK % ("mission", "false"))
    with Overlay([source, tmp_path / "other"], parent=place) as overlay:
        texts = [(root / "mission" / "config.pbtxt").read_text() for root in overlay.repositories]
        assert "true" in texts[0] and "false" in texts[1]


def test_odd_names_and_links_in_the_source(source: Path, place: Path) -> None:
    add(source, "config", BLOCK % ("config", "true"))
    add(source, "with space", BLOCK % ("with space", "true"))
    (source / ".git").mkdir()
    (source / "linked").symlink_to(source / "mission")
    (source / "dangling").symlink_to(source / "nowhere")
    with Overlay([source], parent=place) as overlay:
        names = sorted(path.name for path in overlay.repositories[0].iterdir())
        # "linked" has another name than its configuration says: an error, and not served.
        assert names == ["bare", "config", "mission", "plain", "with space"]


def test_a_folder_that_nobody_may_look_into_hides_no_other(
    source: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent == source / "mission":
            raise PermissionError(13, "Permission denied")  # root may look everywhere
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    (source / "mission" / "config.json").unlink()
    with Overlay([source], parent=place) as overlay:
        assert sorted(path.name for path in overlay.repositories[0].iterdir()) == ["bare", "plain"]
        assert [p.level for p in overlay.models[0, "mission"].problems] == ["error"]


def test_no_repository_is_said(source: Path, place: Path) -> None:
    with pytest.raises(NotADirectoryError, match="no model repository"), Overlay([source / "none"], parent=place):
        pass
    with pytest.raises(NotADirectoryError, match="is one model"), Overlay([source / "plain"], parent=place):
        pass
    assert list(place.iterdir()) == []


def test_the_next_one_removes_what_a_killed_one_left(source: Path, place: Path) -> None:
    program = (
        "import os, signal, sys; from umo.overlay import Overlay\n"
        "with Overlay([sys.argv[1]], parent=sys.argv[2]) as overlay:\n"
        "    print(overlay.root, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, source, place], capture_output=True, text=True, check=False)
    left = Path(ended.stdout.strip())
    assert ended.returncode == -9 and left.is_dir()
    # Of a process that lives, of somebody who is making one just now, and what is no overlay at all.
    living = place / "umo-serve-living"
    living.mkdir()
    namespace = os.readlink("/proc/self/ns/pid")
    (living / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())} {namespace}")
    foreign = place / "umo-serve-foreign"
    foreign.mkdir()
    (foreign / "owner").write_text(f"{os.getpid()} 1 pid:[1]")
    (place / "umo-serve-young").mkdir()
    (place / "umo-serve-link").symlink_to(source)
    (place / "other").mkdir()
    with Overlay([source], parent=place) as overlay:
        assert not left.exists() and overlay.root.is_dir()
    names = sorted(path.name for path in place.iterdir())
    assert names == ["other", "umo-serve-foreign", "umo-serve-link", "umo-serve-living", "umo-serve-young"]
    assert source.is_dir() and (source / "plain" / "config.pbtxt").exists()
    # A pid that was given again to another process is no owner.
    (living / "owner").write_text(f"{os.getpid()} 1 {namespace}")
    assert remove_abandoned(place) == [living]
