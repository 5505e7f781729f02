"""The command `umo`. Each subcommand imports what it needs when it runs, so that the others start at once."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Annotated

import typer


class Exit(IntEnum):
    """Exit statuses that all subcommands share."""

    OK = 0
    FOUND = 1  # what was looked at has errors
    USAGE = 2  # the command line is wrong, or names what is not there
    CANNOT_RUN = 3  # something that has to run does not


app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def stop(text: str, status: int) -> typer.Exit:
    """Says why on the error output; raise what comes back."""
    print(f"umo: {text}", file=sys.stderr)
    return typer.Exit(status)


def pairs(values: list[str], option: str) -> dict[str, str]:
    """OLD=NEW, several times."""
    made = {}
    for value in values:
        old, sign, new = value.partition("=")
        if not (old and sign and new):
            raise typer.BadParameter(f"{option} {value!r}: write OLD=NEW")
        made[old] = new
    return made


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            print(metadata.version("umo"))
        except metadata.PackageNotFoundError:
            print("from a source tree")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
) -> None:
    """umo: unified memory for Triton Inference Server."""


from . import config as _config  # noqa: E402  the subcommands register themselves
from . import doctor as _doctor  # noqa: E402
from . import explain as _explain  # noqa: E402
from . import prove as _prove  # noqa: E402
from . import serve as _serve  # noqa: E402

__all__ = ["Exit", "app", "pairs", "stop"]
_COMMANDS = (_config, _doctor, _explain, _prove, _serve)
