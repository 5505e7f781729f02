"""`umo prove`: umo-prove under the one command."""

from __future__ import annotations

import typer

from . import app


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
def prove(context: typer.Context) -> None:
    """Count what a model of any backend copies, by three witnesses (umo-prove)."""
    from ..prove.cli import app as prove_app

    prove_app(args=context.args, prog_name="umo prove")
