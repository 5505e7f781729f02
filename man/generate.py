"""Writes the man pages and the shells' completion out of the command line itself: they cannot say anything else.

    python man/generate.py            write man/*.1 and man/completion/
    python man/generate.py --check    1 and a list where a file is not what would be written

One page for `umo` and one for each subcommand (umo-serve.1; `umo config check` is a section of umo-config.1). The pages
are part of the repository: installing needs no Python.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer._completion_shared import get_completion_script

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))

import umo  # noqa: E402
from umo.cli import app  # noqa: E402
from umo.prove.cli import app as prove_app  # noqa: E402

ENVIRONMENT = (
    ("UMO_TRITONSERVER", "The tritonserver program. Default: the one of the package nvidia-pytriton, else of PATH."),
    ("UMO_BACKENDS", "Folders of backends, parted by colons, that come before umo's own."),
    ("UMO_ONNXRUNTIME", "ONNX Runtime's library, or its folder. Default: that of the package onnxruntime."),
    ("UMO_SPY_LIBRARY", "The library that umo prove preloads. Default: umo's own."),
    ("UMO_INPROC_INFER", "The program in which umo prove counts instructions. Default: umo's own."),
)
COMPLETIONS = (("bash", "umo"), ("zsh", "_umo"), ("fish", "umo.fish"))


def escape(text: str) -> str:
    """Words as roff: nothing of theirs is an instruction."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"(\d)\\-(\d)", r"\1-\2", text)
    return "\n".join(f"\\&{line}" if line[:1] in {".", "'"} else line for line in text.splitlines())


def paragraphs(text: str) -> Iterator[str]:
    for number, part in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if number:
            yield ".PP"
        yield escape(" ".join(part.split()))


def is_argument(param: Any) -> bool:
    return param.param_type_name == "argument"


def value_of(command: Any, param: Any) -> str:
    """What stands behind an option: FILE, 0-65535 and the like; nothing behind a switch."""
    if getattr(param, "is_flag", False):
        return ""
    shown = param.display_type(typer.Context(command)).strip("<>").removesuffix(" range")
    return param.metavar or re.sub(r"^list\[(.*)\]$", r"\1", shown).upper()


def label(command: Any, param: Any) -> str:
    names = [f"\\fB{escape(name)}\\fR" for name in (*param.opts, *param.secondary_opts)]
    value = value_of(command, param)
    return ", ".join(names) + (f" \\fI{escape(value)}\\fR" if value else "")


def synopsis(name: str, command: Any) -> str:
    words = [f"\\fB{escape(name)}\\fR"]
    if any(not is_argument(param) for param in command.params):
        words.append("[\\fIOPTION\\fR]...")
    for param in filter(is_argument, command.params):
        shown = escape(param.metavar or param.name.upper())
        words.append(f"\\fI{shown}\\fR" if param.required else f"[\\fI{shown}\\fR]")
    if getattr(command, "commands", None):
        words.append("\\fICOMMAND\\fR [\\fIARGUMENT\\fR]...")
    return " ".join(words)


def described(param: Any) -> str:
    text = param.help or ""
    shown = param.default not in (None, False, (), [], "") and not callable(param.default)
    return escape(f"{text} Default: {param.default}.".strip() if shown else text or "See the description.")


def parameters(command: Any) -> Iterator[str]:
    for param in command.params:
        if getattr(param, "hidden", False):
            continue
        yield ".TP"
        yield f"\\fI{escape(param.metavar or param.name.upper())}\\fR" if is_argument(param) else label(command, param)
        yield described(param)
    yield ".TP"
    yield "\\fB\\-h\\fR, \\fB\\-\\-help\\fR"
    yield "Show help and leave."


def page(name: str, command: Any) -> str:
    """One man page. `name` is as it is typed: umo serve."""
    title = name.replace(" ", "-")
    first = re.split(r"(?<=[.:])\s", inspect.cleandoc(command.help or "").removeprefix("umo: "))[0].rstrip(".:")
    lines = [f'.TH {title.upper()} 1 "" "umo {umo.__version__}" "User Commands"']
    lines += [".SH NAME", f"{escape(title)} \\- {escape(first[:1].lower() + first[1:])}"]
    subcommands = dict(sorted(getattr(command, "commands", {}).items()))
    lines += [".SH SYNOPSIS", synopsis(name, command), ".SH DESCRIPTION", *paragraphs(command.help or "")]
    lines += [".SH OPTIONS", *parameters(command)]
    if name == "umo":
        lines.append(".SH COMMANDS")
        for word, sub in subcommands.items():
            lines += [".TP", f"\\fBumo\\-{escape(word)}\\fR(1)", *list(paragraphs(sub.help or ""))[:1]]
        lines.append(".SH ENVIRONMENT")
        for word, text in ENVIRONMENT:
            lines += [".TP", f"\\fB{word}\\fR", escape(text)]
    else:
        for word, sub in subcommands.items():
            lines += [f".SS {escape(f'{name} {word}')}", synopsis(f"{name} {word}", sub), ".PP"]
            lines += [*paragraphs(sub.help or ""), *parameters(sub)]
            if sub.epilog:
                lines += [".PP", *paragraphs(sub.epilog)]
    notes, _, exits = (command.epilog or "").partition("Exit status: ")
    if notes.strip():
        lines += [".SH NOTES", *paragraphs(notes)]
    if exits:
        lines += [".SH EXIT STATUS", *paragraphs(exits[:1].upper() + exits[1:])]
    others = [f"\\fBumo\\-{escape(word)}\\fR(1)" for word in subcommands] if name == "umo" else ["\\fBumo\\fR(1)"]
    lines += [".SH SEE ALSO", ",\n".join(others)]
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    command = typer.main.get_command(app)
    made = {HERE / "umo.1": page("umo", command)}
    for word, sub in command.commands.items():  # type: ignore[attr-defined]
        if not sub.hidden:
            # `umo prove` hands everything on to a command of its own.
            real = typer.main.get_command(prove_app) if word == "prove" else sub
            made[HERE / f"umo-{word}.1"] = page(f"umo {word}", real)
    for shell, file in COMPLETIONS:
        text = get_completion_script(prog_name="umo", complete_var="_UMO_COMPLETE", shell=shell)
        made[HERE / "completion" / shell / file] = text.rstrip("\n") + "\n"
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    wanted = files()
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    left = sorted(set(HERE.glob("*.1")) - set(wanted))
    if args.check:
        for path in stale + left:
            print(f"{path.relative_to(HERE.parent)}: not what the command line says: run man/generate.py")
        return 1 if stale or left else 0
    for path in left:
        path.unlink()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
