"""The command line's reference out of the commands themselves: `.. umo-commands::`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def tree() -> Any:
    """Click's command `umo`, with what other programs bring in its place."""
    from typer.main import get_command

    from umo.cli import app
    from umo.prove.cli import app as prove

    root = get_command(app)
    root.commands["prove"] = get_command(prove)  # `umo prove` hands everything on to it
    return root


def _escape(text: str) -> str:
    return re.sub(r"([\\*`|_<>])", r"\\\1", " ".join(text.split()))


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text.strip("\b\n ")):
        if block.startswith("\b"):  # Click leaves such a block as it is
            yield from ["::", "", *("   " + line for line in block.split("\n")[1:]), ""]
        else:
            yield from [_escape(block), ""]


def _kind(param: Any) -> str:
    """What stands behind an option: FILE, or nothing for a switch."""
    if getattr(param, "is_flag", False):
        return ""
    return param.metavar or param.name.upper()


def _default(param: Any) -> str:
    if (
        param.default in (None, False, True, [], ())
        or callable(param.default)
        or "Sentinel" in type(param.default).__name__
    ):
        return ""
    return f" Default: {_escape(str(param.default))}."


def text(name: str, command: Any) -> list[str]:
    """One command as reStructuredText."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    said = [p.metavar or f"[{p.name.upper()}]" if not p.required else p.metavar or p.name.upper() for p in arguments]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *said])
    lines = [".. code-block:: text", "", f"   {usage}", "", *_paragraphs(command.help or "")]
    for param in [*arguments, *options]:
        names = (
            [*param.opts, *param.secondary_opts]
            if param.param_type_name == "option"
            else [param.metavar or param.name.upper()]
        )
        kind = _kind(param) if param.param_type_name == "option" else ""
        about = _escape(getattr(param, "help", None) or "") + (
            _default(param) if param.param_type_name == "option" else ""
        )
        if about:
            shown = ", ".join(f"``{one}``" for one in names) + (f" ``{kind}``" if kind else "")
            lines += [shown, f"   {about}", ""]
    if command.epilog:
        lines += ["", *_paragraphs(command.epilog)]
    return lines


class CommandsDirective(SphinxDirective):
    """A section for `umo` and each of its commands, those below a command included."""

    def run(self) -> list[nodes.Node]:
        return list(self._sections("umo", tree()))

    def _sections(self, name: str, command: Any) -> Iterator[nodes.Node]:
        section = nodes.section(ids=[name.replace(" ", "-")], names=[name])
        section += nodes.title(name, name)
        lines = text(name, command)
        self.state.nested_parse(StringList(lines, items=[(f"{name} --help", 0)] * len(lines)), 0, section)
        yield section
        for below, one in sorted(getattr(command, "commands", {}).items()):
            yield from self._sections(f"{name} {below}", one)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("umo-commands", CommandsDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
