"""`umo explain`: what a reason or a result means, and what to do about it."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from typing import Annotated

import typer

from . import Exit, app, stop

_EPILOG = "Exit status: 0 explained; 1 nothing in the text is a reason or a result of umo's; 3 libumo is not there."


def _show(kind: str, label: str, cause: str, remedy: str) -> None:
    print(f"{label} ({kind})")
    for name, text in (("what happened", cause), ("what to do", remedy)):
        print(textwrap.fill(text, 78, initial_indent=f"  {name + ':':15}", subsequent_indent=" " * 17))


@app.command(epilog=_EPILOG)
def explain(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="A reason (control_data), a result (NOMEM), or a line that has them. Without: all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on the standard output.")] = False,
) -> None:
    """Say what a reason or a result of umo's means, and what to do about it."""
    from ..words import reasons, results

    try:
        known = [("reason", words) for words in reasons()] + [("result", words) for words in results()]
    except OSError as error:
        raise stop(error, Exit.CANNOT_RUN) from error
    said = " ".join(text or [])
    if text is None:
        chosen = known
    else:
        # As in metrics, in C (UMO_E_NOMEM, UMO_REASON_LIMIT), or somewhere in a log's line.
        tokens = set(re.findall(r"[A-Za-z_]+", said))
        tokens |= {t.removeprefix("UMO_E_") for t in tokens}
        tokens |= {t.removeprefix("UMO_REASON_").lower() for t in tokens if t.startswith("UMO_REASON_")}
        chosen = [(kind, words) for kind, words in known if words.label in tokens]
        if not chosen and len(text) == 1:  # one word: its case does not matter
            chosen = [(kind, words) for kind, words in known if words.label.lower() == said.lower()]
    if not chosen:
        near = difflib.get_close_matches(said.lower(), [words.label.lower() for _, words in known], n=3)
        hint = f"; is it {' or '.join(near)}?" if near else "; `umo explain` without a word lists all"
        raise stop(f"{said!r} has no reason and no result of umo's{hint}", Exit.FOUND)
    if as_json:
        print(json.dumps([{"kind": kind, **words._asdict()} for kind, words in chosen], indent=2))
        return
    for kind, words in chosen:
        _show(kind, *words)
