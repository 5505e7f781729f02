"""The command `umo`. Each subcommand imports what it needs when it runs, so that the others start at once."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .run import App, Exit, stop, why

app = App(
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def pairs(values: list[str], option: str) -> dict[str, str]:
    """OLD=NEW, several times."""
    made = {}
    for value in values:
        old, sign, new = value.partition("=")
        if not (old and sign and new):
            raise typer.BadParameter(f"{option} {value!r} names no pair; write OLD=NEW")
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
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
) -> None:
    """umo: unified memory for Triton Inference Server."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False


from . import bench as _bench  # noqa: E402  the subcommands register themselves
from . import config as _config  # noqa: E402
from . import doctor as _doctor  # noqa: E402
from . import example as _example  # noqa: E402
from . import explain as _explain  # noqa: E402
from . import plan as _plan  # noqa: E402
from . import prove as _prove  # noqa: E402
from . import record as _record  # noqa: E402
from . import report as _report  # noqa: E402
from . import serve as _serve  # noqa: E402
from . import top as _top  # noqa: E402

__all__ = ["Exit", "app", "pairs", "stop", "why"]
_COMMANDS = (_bench, _config, _doctor, _example, _explain, _plan, _prove, _record, _report, _serve, _top)
