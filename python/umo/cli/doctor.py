"""`umo doctor`: what this machine offers, what it means, and how to mend what is missing."""

from __future__ import annotations

import json
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from . import Exit, app

if TYPE_CHECKING:
    from ..doctor import Finding

_EPILOG = "Exit status: 0 umo can work here (something may be missing); 1 something that has to work does not."
_MARKS = {"good": "ok", "note": "note", "missing": "none", "fault": "FAULT"}
_COLOURS = {"good": typer.colors.GREEN, "note": typer.colors.YELLOW, "missing": typer.colors.BLUE, "fault": "red"}


def _show(finding: Finding) -> None:
    mark = typer.style(f"{_MARKS[finding.state]:>7}", fg=_COLOURS[finding.state], bold=finding.state == "fault")
    head = textwrap.wrap(f"{finding.name}: {finding.found}", 70, subsequent_indent="  ")
    typer.echo(f"{mark}  " + ("\n" + " " * 9).join(head))
    for label, text in (("", finding.means), ("to mend: ", finding.mend)):
        if text:
            # A command or a path stays in one piece, so that it can be copied.
            typer.echo(
                textwrap.fill(
                    label + text, 79, initial_indent=" " * 11, subsequent_indent=" " * 11,
                    break_long_words=False, break_on_hyphens=False,
                )
            )  # fmt: skip


@app.command(epilog=_EPILOG)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """Look at devices, drivers, memory, kernel, server and engines: what each means, and how to mend it."""
    from ..doctor import examine

    found, area = [], ""
    for finding in examine():
        found.append(finding)
        if as_json:
            continue
        if finding.area != area:
            area = finding.area
            typer.echo(("\n" if len(found) > 1 else "") + typer.style(area, bold=True))
        _show(finding)
        sys.stdout.flush()
    counts = Counter(finding.state for finding in found)
    if as_json:
        print(json.dumps({"findings": [f.as_dict() for f in found], "counts": dict(counts)}, indent=2))
    else:
        said = {"fault": "does not work", "missing": "not there", "note": "could be better", "good": "as it should be"}
        typer.echo("\n" + ", ".join(f"{counts[state]} {text}" for state, text in said.items() if counts[state]))
    if counts["fault"]:
        raise typer.Exit(Exit.FOUND)
