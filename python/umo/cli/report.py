"""`umo report`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import Exit, app, stop, why

_EPILOG = (
    "Exit status: 0 written; 2 the recording cannot be read (missing, empty, cut short, of another version, no "
    "recording) or the page cannot be written there; 3 umo's library or headers are not there."
)


@app.command(epilog=_EPILOG)
def report(
    recording: Annotated[
        Path, typer.Argument(metavar="PROFILE", help="What umo record or umo_profile_dump() wrote.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; - is the screen. Default: PROFILE with the ending .html."),
    ] = None,
    partial: Annotated[bool, typer.Option(help="Show what is whole of a recording that was cut short.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The figures as one JSON object; a page is written only with -o.")
    ] = False,
) -> None:
    """Show where the bytes of a recording went, as one HTML file that needs nothing else."""
    from .. import profile
    from ..report import Report
    from ..report.words import amount, many, percent, shown

    target = output if output is not None or as_json else recording.with_suffix(".html")
    to_screen = target is not None and str(target) == "-"
    if to_screen and as_json:
        raise stop("the page and the JSON cannot both go to the screen; name a file with -o", Exit.USAGE)
    if target is not None and not to_screen and target.exists() and recording.exists() and target.samefile(recording):
        raise stop(f"{target} is the recording itself; name another file with -o", Exit.USAGE)
    try:
        read = profile.read(recording, partial=partial)
    except profile.ProfileError as error:
        cut, _, _ = str(error).partition("; read it with")
        hint = "; --partial shows what is whole of it" if "cut short" in cut else ""
        raise stop(f"{cut}{hint}", Exit.USAGE) from error
    except (FileNotFoundError, RuntimeError) as error:  # umo's own headers
        raise stop(error, Exit.CANNOT_RUN) from error
    if len(read) == 0:
        raise stop(f"{recording}: it holds no event; record while the server works", Exit.USAGE)
    size = 0
    made = Report(read, recording.name)
    try:
        said = made.summary()
        page = made.html() if to_screen else ""
    except OSError as error:
        raise stop(error, Exit.CANNOT_RUN) from error
    if to_screen:
        sys.stdout.write(page)
        return
    if target is not None:
        try:
            size = made.write(target)
        except OSError as error:
            raise stop(f"{target}: {why(error)}", Exit.USAGE) from error
    if as_json:
        print(json.dumps({**said, "report": None if target is None else str(target), "report_bytes": size}))
        return
    moved, saved = said["totals"]["moved"]["bytes"], said["totals"]["saved"]["bytes"]
    print(f"{target}: {amount(size)}, {many(len(read), 'event')}")
    print(f"  saved {amount(saved)} ({percent(saved, saved + moved)}), still moved {amount(moved)}")
    for row in said["still_moves"][:3]:
        line = f"  {amount(row['bytes']):>8} {shown(row['model'])}: {row['reason']}"
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        print(line.encode(encoding, "replace").decode(encoding))
    if read.lost:
        print(f"  {many(read.lost, 'event')} lost: the sums are lower bounds")
