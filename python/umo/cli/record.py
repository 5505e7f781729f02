"""`umo record`: what a running process does with memory, without its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import Exit, app, stop, why

_FORMATS = ("umo", "csv", "chrome", "perfetto")
_ENDINGS = {"umo": ".umo", "csv": ".csv", "chrome": ".json", "perfetto": ".pftrace"}
_EPILOG = (
    "Exit status: 0 recorded or converted; 2 wrong command line, no such process, or no recording in the file; 3 the "
    "process cannot be recorded, or the file cannot be written."
)


@app.command(epilog=_EPILOG)
def record(
    pid: Annotated[int | None, typer.Option("--pid", "-p", help="The process; a tritonserver, for example.")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long; until Ctrl-C otherwise.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file, - for the output.")] = None,
    form: Annotated[str, typer.Option("--format", help="umo, csv, chrome or perfetto.")] = "umo",
    triton_trace: Annotated[
        Path | None, typer.Option(help="The server's own trace file, to be put on the same timeline.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Instead of a process: turn this recording into another form.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="With --from: what is whole of one cut short.")] = False,
    memory: Annotated[int, typer.Option(help="MiB for events in the process, while it is recorded.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Record a running process of yours: allocations, transfers, copies, placement, requests."""
    if (pid is None) == (source is None):
        raise stop("nothing to record; give --pid PID, or --from FILE for another form of a recording", Exit.USAGE)
    if form not in _FORMATS:
        raise stop(f"--format {form!r} is none of its forms; write one of {', '.join(_FORMATS)}", Exit.USAGE)
    if seconds is not None and not 0 < seconds < 1e9:
        raise stop(f"--seconds {seconds:g} is no length of time; give more than 0", Exit.USAGE)
    if not 1 <= memory <= 256:
        raise stop(f"--memory {memory} is too little or too much; give 1 to 256 MiB", Exit.USAGE)
    if triton_trace is not None and form not in ("chrome", "perfetto"):
        raise stop("--triton-trace has no place in this form; give --format chrome or perfetto", Exit.USAGE)
    ending = _ENDINGS[form]
    if source is not None:
        _convert(source, output or source.with_suffix(ending), form, triton_trace, partial, as_json)
    elif pid is not None:
        _run(pid, seconds, output or Path(f"umo-{pid}{ending}"), form, triton_trace, memory, as_json)


def _convert(source: Path, path: Path, form: str, triton_trace: Path | None, partial: bool, as_json: bool) -> None:
    import json
    import sys

    from ..profile import ProfileError, read
    from ..profile.convert import convert

    try:
        profile = read(source, partial)
        size = convert(profile, path, form, triton_trace)
    except ProfileError as error:
        raise stop(error, Exit.USAGE) from None
    except OSError as error:
        raise stop(f"{path}: {why(error)}", Exit.CANNOT_RUN) from None
    out = sys.stderr if str(path) == "-" else sys.stdout
    if as_json:
        print(json.dumps({"file": str(path), "events": len(profile), "lost": profile.lost, "bytes": size}), file=out)
    else:
        print(f"{path}: {len(profile):,} events", file=out)


def _run(
    pid: int, seconds: float | None, path: Path, form: str, triton_trace: Path | None, memory: int, as_json: bool
) -> None:
    import json
    import os
    import signal
    import sys
    import threading

    from ..profile import ProfileError
    from ..profile import record as recording
    from ..profile.convert import converter
    from ..profile.recorder import NOT_FOUND, RecorderError

    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    if sys.stderr.isatty() and seconds is None:
        print(f"umo: recording process {pid}; Ctrl-C ends it", file=sys.stderr)
    recording.step_back()
    try:
        convert = converter(form, triton_trace)
        result = recording.record(pid, path, ending, seconds, memory << 20, convert)
    except RecorderError as error:
        raise stop(error, Exit.USAGE if error.status == NOT_FOUND else Exit.CANNOT_RUN) from None
    except FileNotFoundError as error:
        if error.errno is None:  # libumo is not there: said in words
            raise stop(error, Exit.CANNOT_RUN) from None
        raise stop(f"{path}: there is no such folder; make it, or name another file with -o", Exit.USAGE) from None
    except BrokenPipeError:
        os._exit(int(Exit.OK))  # whoever read the output has had enough
    except OSError as error:
        raise stop(f"{path}: {why(error)}", Exit.CANNOT_RUN) from None
    except ProfileError as error:
        raise stop(error, Exit.USAGE) from None
    figures = result.figures
    out = sys.stderr if str(path) == "-" else sys.stdout
    if as_json:
        summary = {"file": str(path), "events": result.events, "lost": figures.lost, "gaps": figures.gaps}
        summary |= {"seconds": round(result.seconds, 3), "bytes": result.size_bytes, "ended": figures.ended, "pid": pid}
        print(json.dumps(summary), file=out)
    else:
        ended = "; the process ended" if figures.ended else ""
        print(f"{path}: {result.events:,} events in {result.seconds:.1f} s{ended}", file=out)
    if figures.lost:
        print(f"umo: {figures.lost:,} events were lost; give --memory more than {memory}", file=sys.stderr)
    if figures.gaps:
        print(f"umo: recording was interrupted {figures.gaps} times: this process did not run", file=sys.stderr)
