"""`umo prove`: umo-prove under the one command."""

from __future__ import annotations

import os

import typer

from . import app

# A shell that completes this command needs its options; everybody else is spared what it imports.
_COMPLETED = "_UMO_COMPLETE" in os.environ and "prove" in (
    os.environ.get("COMP_WORDS", "") + os.environ.get("_TYPER_COMPLETE_ARGS", "")
)

if _COMPLETED:
    from ..prove.cli import prove

    app.command()(prove)
else:

    @app.command(
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
        add_help_option=False,
    )
    def prove(context: typer.Context) -> None:
        """Count what a model of any backend copies, by three witnesses (umo-prove)."""
        from ..prove.cli import app as prove_app

        prove_app(args=context.args, prog_name="umo prove")
