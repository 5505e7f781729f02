"""Every command of `umo`: help, errors in one line, exit statuses, pipes, completion."""

import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from umo.cli import app
from umo.cli.run import REMEDIES, Exit, why

ROOT = Path(__file__).parents[2]
PYTHON_PATH = os.pathsep.join([str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])


def commands() -> dict[str, object]:
    """All of them by their words: "config check"."""
    found: dict[str, object] = {}

    def walk(words: list[str], command: object) -> None:
        below = getattr(command, "commands", None)
        if below is None:
            found[" ".join(words)] = command
        for name, sub in (below or {}).items():
            walk([*words, name], sub)

    walk([], typer.main.get_command(app))
    return found


COMMANDS = sorted(commands())


def umo(*words: str, timeout: float = 60, **more) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH, "COLUMNS": "80", **more.pop("env", {})}
    more = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **more}
    return subprocess.run([sys.executable, "-m", "umo", *words], timeout=timeout, env=environment, check=False, **more)


@dataclass
class Ran:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(capsys, monkeypatch):
    """Runs a command in this process, which saves the start of Python. Signals are put back."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> Ran:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            app(list(words), prog_name="umo")
        except SystemExit as end:
            status = end.code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return Ran(int(status or 0), said.out, said.err)

    return run


def test_the_commands_are_those_of_the_page():
    page = (ROOT / "docs" / "cli.md").read_text()
    named = set(re.findall(r"^\| `umo ([a-z]+)`", page, re.MULTILINE))
    assert named == {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_without_colour(command, here):
    done = here(*command.split(), "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"Usage: umo{' ' * bool(command)}{command}")
    assert "\x1b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def statuses() -> dict[str, dict[str, str]]:
    """The table of docs/cli.md."""
    page = (ROOT / "docs" / "cli.md").read_text()
    table = page.partition("<!-- statuses -->\n")[2].partition("\n<!-- /statuses -->")[0].splitlines()
    heads = [cell.strip() for cell in table[0].strip("|").split("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    return {row[0].strip("`"): dict(zip(heads[1:], row[1:], strict=True)) for row in rows}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_page_name_the_same_exit_statuses(command, here):
    said = " ".join(here(*command.split(), "--help").stdout.split()).partition("Exit status: ")[2]
    assert said, "the epilog says the exit statuses"
    row = statuses()[command]
    shown = {number for number in "012345" if re.search(rf"(?:^|[;.,] ){number} [a-z]", said)}
    wanted = {number for number in "013" if row[number]}
    wanted |= set(re.findall(r"\b([4-9]) ", row["other"]))
    assert wanted - {"0"} <= shown | {"2"}, (wanted, said)
    assert shown - {"0", "2"} <= wanted, (wanted, said)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json(command, here):
    assert "--json" in here(*command.split(), "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_is_status_2_and_one_line(command, here):
    done = here(*command.split(), "--no-such-thing")
    assert done.returncode == Exit.USAGE and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("umo: no such option: --no-such-thing") and f"`umo {command} --help`" in line


def bad_inputs(folder: Path) -> list[tuple[list[str], int]]:
    (folder / "empty").mkdir()
    (folder / "text").write_text("no recording, no model\n")
    (folder / "binary").write_bytes(bytes(range(256)) * 40)
    (folder / "broken").mkdir()
    (folder / "broken" / "config.pbtxt").write_text('name: "x" optimization { unified_memory { enabel: true } } [[[')
    return [
        (["nonsense"], 2),
        (["serve"], 2),
        (["serve", f"{folder}/none"], 2),
        (["serve", f"{folder}/empty", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"], 2),
        (["serve", f"{folder}/empty", "--http-port", "x"], 2),
        (["serve", f"{folder}/text"], 2),
        (["config", "check", f"{folder}/none"], 2),
        (["config", "check", f"{folder}/empty"], 2),
        (["config", "check", f"{folder}/binary"], 1),
        (["config", "check", f"{folder}/broken"], 1),
        (["config", "convert", f"{folder}/broken"], 1),
        (["config", "convert", f"{folder}/broken", "--output", "/proc/x/y"], 1),
        (["config", "check", f"{folder}/broken", "--backend", "=="], 2),
        (["explain", "zork"], 1),
        (["explain", "\udcff\x1b[31m"], 1),
        (["record"], 2),
        (["record", "--pid", "-1"], 2),
        (["record", "--pid", "999999999"], 2),
        (["record", "--from", f"{folder}/none"], 2),
        (["record", "--from", f"{folder}/text"], 2),
        (["report", f"{folder}/none"], 2),
        (["report", f"{folder}/empty"], 2),
        (["report", f"{folder}/text"], 2),
        (["report", f"{folder}/binary"], 2),
        (["top", "not a url", "--once"], 2),
        (["top", "http://127.0.0.1:1/metrics", "--once"], 3),
        (["top", "--sort", "zork", "--once"], 2),
        (["prove", "m", "--model-repository", f"{folder}/none"], 2),
        (["bench", "--only", "zork"], 2),
        (["plan", f"{folder}/none"], 2),
        (["plan", f"{folder}/binary"], 1),
        (["plan", f"{folder}/text"], 1),
        (["example", "/proc/nothing/here", "--write"], 2),
        (["example", "--ask", "--write"], 2),
    ]


def test_bad_input_is_said_in_one_line_and_never_a_traceback(tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    for words, status in bad_inputs(tmp_path):
        done = here(*words)
        said = done.stderr.splitlines()
        fine = done.returncode == status and "Traceback" not in done.stderr + done.stdout and said
        # A configuration's problems have a form of their own, FILE:LINE: error: ...
        fine = fine and (words[0] == "config" or (len(said) == 1 and said[0].startswith("umo: ")))
        fine = fine and not any("\x1b" in line for line in said)
        if not fine:
            wrong.append((words, done.returncode, said))
    assert not wrong, wrong


def test_a_closed_pipe_a_closed_output_and_a_full_disk():
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m umo explain | head -1; {sys.executable} -m umo explain >&-; echo $?"],
        env={**os.environ, "PYTHONPATH": PYTHON_PATH}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "none (reason)\n0\n" and done.stderr == ""
    reader, writer = os.pipe()
    os.close(reader)
    gone = umo("explain", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert gone.returncode == Exit.NO_READER and gone.stderr == ""
    with open("/dev/full", "w") as full:
        done = umo("explain", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == Exit.CANNOT_RUN
    (line,) = done.stderr.splitlines()
    assert line.startswith("umo: ") and "No space left" in line and "make room" in line


def on_a_terminal(*words: str, **environment: str) -> bytes:
    pid, file = pty.fork()
    if pid == 0:
        os.environ.update({"PYTHONPATH": PYTHON_PATH, "TERM": "xterm-256color", **environment})
        os.execv(sys.executable, [sys.executable, "-m", "umo", *words])
    said, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([file], [], [], 0.1)[0]:
            try:
                said += os.read(file, 65536)
            except OSError:
                break
    os.close(file)
    os.waitpid(pid, 0)
    return said


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    quick = {"UMO_TRITONSERVER": "/nonexistent"}
    assert b"\x1b[" in on_a_terminal("doctor", **quick)
    assert b"\x1b[" not in on_a_terminal("doctor", NO_COLOR="1", **quick)
    assert b"\x1b[" not in on_a_terminal("doctor", TERM="dumb", **quick)


def test_ctrl_c_is_no_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "umo", "doctor"], env={**os.environ, "PYTHONPATH": PYTHON_PATH},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline().strip() == "umo"
    process.send_signal(2)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED and complaint == ""


def test_no_home_is_needed(tmp_path):
    """One that is not there stands for one that cannot be written, which root always can."""
    nowhere = {"HOME": "/proc/nothing", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "UMO_TRITONSERVER": "/nonexistent"}
    done = umo("doctor", "--json", env=nowhere)
    assert done.returncode == 0, done.stderr
    (found,) = [f for f in json.loads(done.stdout)["findings"] if f["name"] == "calibration"]
    assert found["state"] in ("note", "good")


def test_a_fault_of_its_own_is_one_line_and_where_on_demand(tmp_path):
    (tmp_path / "broken.py").write_text(
        "import umo.words\n"
        "def reasons(): raise RuntimeError('dry\\njoint')\n"
        "umo.words.reasons = reasons\n"
        "from umo.cli import app\napp(prog_name='umo')\n"
    )
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    command = [sys.executable, str(tmp_path / "broken.py"), "explain"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.BROKEN
    assert done.stderr.count("\n") == 1 and "RuntimeError: dry joint; please report" in done.stderr
    environment["UMO_TRACEBACK"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.BROKEN and "Traceback" in done.stderr


def test_what_the_system_says_gets_a_remedy():
    assert why(FileNotFoundError("umo has none; install it")) == "umo has none; install it"
    for number, remedy in REMEDIES.items():
        assert why(OSError(number, os.strerror(number))) == f"{os.strerror(number)}; {remedy}"
    assert "dmesg" in why(OSError(5, "Input/output error"))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("umo se", {"serve"}),
        ("umo re", {"record", "report"}),
        ("umo serve --http", {"--http-port"}),
        ("umo config ch", {"check"}),
        ("umo prove --exp", {"--expected", "--expect-zero"}),
        ("umo bench --q", {"--quick"}),
    ],
)
def test_shells_complete_commands_and_options(words, wanted):
    bash = {"_UMO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert set(umo(env=bash).stdout.split()) == wanted
    for shell in ("zsh", "fish"):
        said = umo(
            env={
                "_UMO_COMPLETE": f"complete_{shell}",
                "_TYPER_COMPLETE_ARGS": words,
                "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            }
        ).stdout
        assert wanted == {word for word in re.findall(r"[\w-]+", said) if word in wanted}, (shell, said)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_itself_completes(tmp_path):
    (tmp_path / "umo").write_text(f'#!/bin/sh\nexec {sys.executable} -m umo "$@"\n')
    (tmp_path / "umo").chmod(0o755)
    script = (
        f"source {ROOT}/man/completion/bash/umo; COMP_WORDS=(umo do); COMP_CWORD=1; _umo_completion umo; "
        'echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["doctor"]


def test_help_loads_nothing_heavy_and_is_soon_there():
    script = (
        "import sys; sys.argv = ['umo', '--help']\n"
        "import contextlib, io\n"
        "from umo.__main__ import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()\n"
        "heavy = {'numpy', 'rich', 'textual', 'tritonclient', 'grpc', 'google', 'prometheus_client', 'umo._core'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    typer_alone = "import typer, typer.main, typer.completion, json, tempfile"
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH}

    def run(code: str) -> tuple[str, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert run(script)[0] == "[]\n"
    # 120 ms where the machine is at rest. What holds under load too: against Python and Typer alone, in turns.
    ratios = [run(script)[1] / run(typer_alone)[1] for _ in range(5)]
    assert statistics.median(ratios) <= 1.7, ratios


def test_both_ways_to_start_it_are_the_same():
    text = (ROOT / "python" / "pyproject.toml").read_text()
    assert 'umo = "umo.__main__:main"' in text
    script = "from umo.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "explain", "limit"], env={**os.environ, "PYTHONPATH": PYTHON_PATH},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == umo("explain", "limit").stdout != ""
