"""What every command has in common: how it ends, and what its last line on the error output says.

    umo: WHAT IS WRONG; WHAT TO DO

One line, on the error output, whatever went wrong: docs/cli.md has the rule, python/tests/test_cli_errors.py keeps it.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from enum import IntEnum
from typing import Any

import typer

# Some versions of Typer bring a Click of their own, others take the installed one: these are those that it raises.
_UsageError = typer.BadParameter.__bases__[0]
_ClickException = _UsageError.__bases__[0]


class Exit(IntEnum):
    """Exit statuses that all subcommands share."""

    OK = 0
    FOUND = 1  # what was looked at has errors
    USAGE = 2  # the command line is wrong, or names what is not there
    CANNOT_RUN = 3  # something that has to run does not
    BROKEN = 70  # a fault of umo's own
    INTERRUPTED = 130  # Ctrl-C
    NO_READER = 141  # the reader of a pipe has had enough


REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file, not a folder",
    errno.EACCES: "its owner or root can; check its permissions (ls -l)",
    errno.EPERM: "its owner or root can",
    errno.EROFS: "name a place on a disk that can be written",
    errno.ENOSPC: "make room on that disk (df), or name another place",
    errno.EDQUOT: "make room within your quota, or name another place",
    errno.EEXIST: "name another, or remove it first",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "check the links of the path",
    errno.EADDRINUSE: "choose another port",
    errno.ECONNREFUSED: "start the server, or check the address",
    errno.ENOMEM: "end what holds memory",
}


# What to do about errors whose own words do not say it, by the names of their classes: none is imported for this.
REMEDIES_OF = {
    "ServerError": "see what it said, here or in its log; `umo doctor` starts one for a moment",
    "WrongConfig": "mend what is named above, or serve the others with --allow-failing",
    "ProfileError": "record it again, or name another file",
    "PlanError": "correct it there",
    "SourceError": "check that a server is up and serves metrics there",
    "TrafficError": "check the model's configuration, and --shape for what it leaves open",
    "CensusError": "try again; `umo prove --help` says how to go without it",
    "CensusUnavailable": "leave the census out with --no-census",
    "SlopeError": "leave the slope out with --no-slope",
    "SlopeUnavailable": "leave the slope out with --no-slope",
    "SpyError": "build umo from its source: the witnesses come with it (docs/install.md)",
    "LayoutError": "use the spy of this version of umo",
    "TimeoutError": "try again when the machine is at rest",
}


def why(error: OSError) -> str:
    """What the system said, and what to do about it."""
    if error.errno is None:
        return str(error)  # words of umo's own
    remedy = REMEDIES.get(error.errno, "the system's log (dmesg, journalctl) may say more")
    return f"{error.strerror or error}; {remedy}"


def complaint(error: BaseException) -> str:
    """What an error says, and what to do: its own words have it, or its status, or its class."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename}: {why(error)}" if error.filename else why(error)
    head, *rest = str(error).splitlines() or [type(error).__name__]
    if "; " not in head:
        named = [REMEDIES_OF[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in REMEDIES_OF]
        remedy = getattr(error, "remedy", None) or (named[0] if named else None)
        head += f"; {remedy}" if remedy else ""
    return "\n".join([head, *rest])


def stop(text: str | BaseException, status: int) -> typer.Exit:
    """Says why on the error output; raise what comes back."""
    print(f"umo: {complaint(text) if isinstance(text, BaseException) else text}", file=sys.stderr)
    return typer.Exit(status)


def _usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return Exit.USAGE
    command = error.ctx.command_path if getattr(error, "ctx", None) else "umo"
    text = " ".join(error.format_message().split()).rstrip(".").removeprefix("Invalid value: ")
    # A text that says what to do has it behind a semicolon, or is told where to look.
    hint = "" if "; " in text else f"; `{command} --help` shows what can be given"
    print(f"umo: {text[:1].lower()}{text[1:]}{hint}", file=sys.stderr)
    return Exit.USAGE


def _broken(error: BaseException) -> int:
    cause: BaseException | None = error
    while cause is not None:  # an import that Ctrl-C broke off says something else
        if isinstance(cause, KeyboardInterrupt):
            return Exit.INTERRUPTED
        cause = cause.__cause__ or cause.__context__
    if os.environ.get("UMO_TRACEBACK"):
        traceback.print_exception(error)
    said = " ".join(str(error).split()) or "no words"
    print(
        f"umo: a fault of its own: {type(error).__name__}: {said}; "
        "please report it with what the same command says with UMO_TRACEBACK=1",
        file=sys.stderr,
    )
    return Exit.BROKEN


def _have_outputs() -> None:
    """Outputs that the caller has closed lead nowhere: else the next file that is opened would take their number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            place = os.open(os.devnull, os.O_WRONLY)
            if place != number:
                os.dup2(place, number)
                os.close(place)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _flush(status: int) -> int:
    """What is still to be written is written now, where an error can be said."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _to_nowhere()
        return Exit.NO_READER
    except OSError as error:
        _to_nowhere()
        print(f"umo: the output could not be written: {why(error)}", file=sys.stderr)
        return Exit.CANNOT_RUN
    return status


def _to_nowhere() -> None:
    """What is left in the buffer has nowhere to go, and Python must not try at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class App(typer.Typer):
    """Typer, with one way to end for all commands."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        _have_outputs()
        status: int = Exit.OK
        try:
            answer = super().__call__(*args, **{**options, "standalone_mode": False})
            status = answer if isinstance(answer, int) else Exit.OK
        except _ClickException as error:
            status = _usage(error)
        except (typer.Abort, KeyboardInterrupt):
            status = Exit.INTERRUPTED
        except BrokenPipeError:
            status = Exit.NO_READER
        except SystemExit as end:
            # Click ends so where the reader has gone, and where a shell has got its completion.
            gone = type(sys.stdout).__name__ == "PacifyFlushWrapper"
            status = Exit.NO_READER if gone else end.code if isinstance(end.code, int) else int(end.code is not None)
        except OSError as error:
            path = f"{error.filename}: " if error.filename else ""
            print(f"umo: {path}{why(error)}", file=sys.stderr)
            status = Exit.CANNOT_RUN
        except Exception as error:  # noqa: BLE001  a fault is said in one line like everything else
            status = _broken(error)
        if status == Exit.NO_READER:
            _to_nowhere()
        sys.exit(_flush(int(status)))
