"""`umo config`: check and convert model configurations."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import Exit, app, pairs, stop, why

if TYPE_CHECKING:
    from ..config import Problem

config_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Check and convert model configurations.")
app.add_typer(config_app, name="config")

_BACKEND = typer.Option(
    "--backend",
    metavar="OLD=NEW",
    help="Exchange a backend in configurations with unified_memory; onnxruntime=umo_onnxruntime is done anyway.",
)
_EPILOG = (
    "Exit status: 0 nothing wrong (warnings and notes may be); 1 a configuration has errors; 2 wrong command line, or "
    "nothing there to read."
)


def _targets(path: Path) -> list[tuple[Path, str | None, Path | None]]:
    """(file, the model's name by its folder, a file that is ignored) of everything below a path."""
    from ..config import find_models

    if not path.exists():
        raise stop(f"{path}: no such file or folder; check the path", Exit.USAGE)
    if path.is_file():
        # Where the file has its usual name, its folder has the model's.
        usual = path.name in ("config.pbtxt", "config.json")
        return [(path, path.resolve().parent.name if usual else None, None)]
    try:
        found = find_models(path)
    except OSError as error:
        raise stop(f"{path}: {why(error)}", Exit.USAGE) from error
    targets = [(model.config, model.folder.resolve().name, model.ignored) for model in found if model.config]
    if not targets:
        raise stop(f"{path}: no config.pbtxt and no config.json, here or in a model's folder; name another", Exit.USAGE)
    return targets


def _show(problems: Iterable[Problem], as_json: bool) -> None:
    if as_json:
        return
    for problem in problems:
        print(problem, file=sys.stderr)


@config_app.command(epilog=_EPILOG)
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIR", help="Configurations, models or repositories.")],
    backend: Annotated[list[str] | None, _BACKEND] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """Report everything that is wrong with configurations, with file and path."""
    from ..config import Problem, read
    from ..config import check as judge

    replaced = pairs(backend or [], "--backend")
    problems: list[Problem] = []
    files = 0
    for path in paths:
        for file, name, ignored in _targets(path):
            files += 1
            problems += judge(read(file), name, replaced)
            if ignored is not None:
                problems.append(Problem("warning", str(ignored), "", f"is ignored: {file.name} counts"))
    _show(problems, as_json)
    failed = any(problem.level == "error" for problem in problems)
    if as_json:
        print(json.dumps({"files": files, "ok": not failed, "problems": [asdict(problem) for problem in problems]}))
    else:
        counts = {level: sum(problem.level == level for problem in problems) for level in ("error", "warning", "note")}
        said = ", ".join(f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts.items() if count)
        print(f"{files} configuration{'s' if files != 1 else ''}: {said or 'nothing to say'}")
    raise typer.Exit(Exit.FOUND if failed else Exit.OK)


def _write(target: Path, text: str) -> None:
    """At once or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".umo-config-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@config_app.command(epilog=_EPILOG)
def convert(
    path: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="A configuration, a model's folder or a repository.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="A file (of a file), or a folder, which gets MODEL/config.pbtxt each. Default: the screen."),
    ] = None,
    backend: Annotated[list[str] | None, _BACKEND] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """Write configurations as a real server takes them: unified_memory as a parameter, umo's backend."""
    from ..config import ConfigError, read
    from ..config import check as judge
    from ..config import convert as make

    replaced = pairs(backend or [], "--backend")
    many = path.is_dir()
    targets = _targets(path)
    if len(targets) > 1 and output is None and not as_json:
        raise stop(f"{path} has {len(targets)} models; say where to with --output", Exit.USAGE)
    if many and output is not None and output.exists() and not output.is_dir():
        raise stop(f"--output {output} is a file, and {path} a folder; name a folder", Exit.USAGE)
    problems: list[Problem] = []
    made: list[dict[str, str]] = []
    for file, name, _ in targets:
        model = read(file)
        try:
            text = make(model, replaced)
        except ConfigError as error:
            problems += error.problems
            continue
        problems += [problem for problem in judge(model, replaced=replaced) if problem.level == "warning"]
        if output is None:
            target = None
        elif many:
            target = output / (name or file.parent.name) / "config.pbtxt"
        else:
            target = output / "config.pbtxt" if output.is_dir() else output
        if target is not None:
            try:
                _write(target, text)
            except OSError as error:
                raise stop(f"{target}: {why(error)}", Exit.USAGE) from error
        made.append({"file": str(file), "output": str(target or ""), "text": text})
        if target is None and not as_json:
            sys.stdout.write(text)
    _show(problems, as_json)
    if as_json:
        print(json.dumps({"converted": made, "problems": [asdict(problem) for problem in problems]}))
    raise typer.Exit(Exit.FOUND if any(problem.level == "error" for problem in problems) else Exit.OK)
