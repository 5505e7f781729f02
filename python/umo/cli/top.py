"""`umo top`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from . import Exit, app, stop

if TYPE_CHECKING:
    from ..top.source import Reading, Source

_EPILOG = (
    "Exit status: 0 shown; 1 the server has no model of umo's backends (--once); 2 the target or an option cannot be; "
    "3 nothing that can be read is there. Without a terminal it does what --once does."
)
_TARGET = "URL of a server's metrics; host:port will do.  [default: http://127.0.0.1:8002/metrics]"


def _process(pid: int) -> Source:
    from ..profile.recorder import NOT_FOUND, RecorderError
    from ..top.recorded import Recorded

    try:
        return Recorded(pid)
    except RecorderError as error:
        raise stop(error, Exit.USAGE if error.status == NOT_FOUND else Exit.CANNOT_RUN) from None
    except (OSError, RuntimeError) as error:  # libumo or its headers are not there
        raise stop(error, Exit.CANNOT_RUN) from None


def _source(target: str | None, timeout_s: float) -> Source:
    from ..top.scrape import DEFAULT_URL, Scrape, url_of

    try:
        return Scrape(url_of(target) if target is not None else DEFAULT_URL, timeout_s)
    except ValueError as error:
        raise stop(f"{error}; write host:port, or http://host:port/metrics", Exit.USAGE) from error


def _first(source: Source) -> Reading:
    from ..top.source import SourceError

    try:
        return source.read()
    except SourceError as error:
        raise stop(error, Exit.CANNOT_RUN) from error


def _dull() -> bool:
    """Whether nothing can be drawn on."""
    return not (sys.stdout.isatty() and sys.stdin.isatty()) or os.environ.get("TERM", "dumb") == "dumb"


def _stream(source: Source, interval_s: float, once: bool, sort: str, filtered: str) -> None:
    from ..top.plain import as_object
    from ..top.rates import Tracker
    from ..top.source import SourceError

    tracker = Tracker()
    tracker.take(_first(source))
    while True:
        time.sleep(interval_s)
        try:
            state = tracker.take(source.read())
        except SourceError as error:
            if once:
                raise stop(error, Exit.CANNOT_RUN) from error
            state = tracker.fail(str(error))
        print(json.dumps(as_object(state, source.name, sort, filtered)), flush=True)
        if once:
            raise typer.Exit(Exit.OK if state.rows or state.buffers is not None else Exit.FOUND)


def _table(source: Source, interval_s: float, sort: str, filtered: str) -> None:
    from rich.console import Console

    from ..top.plain import show
    from ..top.rates import Tracker
    from ..top.source import SourceError

    tracker = Tracker()
    state = tracker.take(_first(source))
    if not state.rows and state.buffers is None:
        raise stop(f"{source.name}: no model of umo's backends is loaded there; load one, or ask another", Exit.FOUND)
    time.sleep(interval_s)
    try:
        state = tracker.take(source.read())
    except SourceError as error:
        raise stop(error, Exit.CANNOT_RUN) from error
    # In a pipe nothing is left out for want of room, unless COLUMNS says how much there is.
    endless = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=400 if endless else None, highlight=False)
    show(state, source.name, console, sort, filtered, None if endless else console.width)


@app.command(epilog=_EPILOG)
def top(
    target: Annotated[str | None, typer.Argument(metavar="[TARGET]", help=_TARGET, show_default=False)] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", "-p", help="Instead: a process of yours here, buffer by buffer.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds between two readings.")] = 2.0,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds that a reading may take.")] = 5.0,
    sort: Annotated[str, typer.Option(help="What to order by: moved, saved, share, live, ... (? on the screen).")] = (
        "moved"
    ),
    only: Annotated[str, typer.Option("--filter", help="Only models whose name has this text.")] = "",
    once: Annotated[bool, typer.Option(help="Print one table of two readings, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a refresh; with --once, one.")] = False,
) -> None:
    """Show live what a server's models move, copy and save, and where their memory is."""
    from ..top.columns import SORTS

    if sort not in SORTS:
        raise stop(f"--sort {sort} is no column to sort by; write one of {', '.join(SORTS)}", Exit.USAGE)
    if pid is not None and target is not None:
        raise stop("a TARGET and --pid exclude each other; give one of them", Exit.USAGE)
    source = _source(target, timeout) if pid is None else _process(pid)
    try:
        if as_json:
            _stream(source, interval, once, sort, only)
        elif once or _dull():
            _table(source, interval, sort, only)
        else:
            from ..top.app import Top

            Top(source, interval, sort, only, _first(source)).run()
    except KeyboardInterrupt:
        raise typer.Exit(Exit.OK) from None
    except BrokenPipeError:
        # Who reads has enough. What is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(Exit.OK) from None
    finally:
        source.close()
