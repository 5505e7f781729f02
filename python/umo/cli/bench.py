"""`umo bench`: this machine's figures beside the README's."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import Exit, app, stop

if TYPE_CHECKING:
    from ..bench import Run, Verdict

_EPILOG = (
    "A ratio is against what the measurement names; both take turns, and its spread is that of the turns. Exit "
    "status: 0 measured, whatever the figures are; 1 a measurement failed, or an answer was wrong; 2 wrong command "
    "line; 3 nothing could be measured."
)


def _figure(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _show(row: dict[str, Any], verdict: Verdict) -> None:
    low, high = map(_figure, row["spread"])
    there = "" if verdict.there is None else f"there {_figure(verdict.there)} x"
    typer.echo(f"  {row['claim']:<36} {_figure(row['ratio']):>7} x  {there}")
    for text in (
        f"{low} to {high}; {row['value']:,} {row['unit']} against {row['opponent']}",
        verdict.words + ("; the turns differ by much, so take it as a rough figure" if verdict.noisy else ""),
    ):
        typer.echo(textwrap.fill(text, 79, initial_indent="      ", subsequent_indent="      "))


def _head(run: Run) -> None:
    typer.echo(typer.style(f"\n{run.measurement.name}", bold=True))
    typer.echo(textwrap.fill(run.measurement.about, 79, initial_indent="  ", subsequent_indent="  "))


@app.command(epilog=_EPILOG)
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this measurement: wrap, numpy, client, batch or recorder. Repeatable."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few and short turns: a minute instead of ten.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """Measure what umo saves on this machine, beside the figures of its README."""
    from ..bench import BUSY, MEASUREMENTS, Run, judge, load, reference
    from ..bench.pack import machine

    names = [measurement.name for measurement in MEASUREMENTS]
    for name in only or []:
        if name not in names:
            raise stop(f"--only {name}: there is no such measurement; write one of {', '.join(names)}", Exit.USAGE)
    known, busy = reference(), load()
    if not as_json:
        typer.echo(f"here:  {machine()}")
        typer.echo(f"there: {known['machine'] or 'this package has no figures to compare with'}")
        if busy > BUSY:
            text = (
                f"{busy:.1f} runnable threads a processor: other work makes these figures worse and their spread wide"
            )
            typer.echo(textwrap.fill(f"load:  {text}", 79, subsequent_indent="       "))
    said: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    notes: list[str] = []
    for measurement in MEASUREMENTS:
        if only and measurement.name not in only:
            continue
        run = Run(measurement, quick)
        if not as_json:
            _head(run)
        for row in run.rows():
            verdict = judge(row, known["rows"].get(row["claim"]), run.load)
            said.append({**row, "measurement": measurement.name, "load": round(run.load, 2), **vars(verdict)})
            if not as_json:
                _show(row, verdict)
                sys.stdout.flush()
        notes += run.notes
        if run.trouble:
            failed[measurement.name] = run.trouble
        for note in [] if as_json else run.notes:
            typer.echo(textwrap.fill(note, 79, initial_indent="  ", subsequent_indent="  "))
        if run.trouble and not as_json:
            typer.echo(textwrap.fill(f"FAILED: {run.trouble}", 79, initial_indent="  ", subsequent_indent="  "))
    if as_json:
        machines = {"here": machine(), "there": known["machine"]}
        print(json.dumps({"machines": machines, "rows": said, "failed": failed, "notes": notes}, indent=2))
    if failed:
        some = ", ".join(f"{name} ({text})" for name, text in failed.items())
        raise stop(f"not measured: {some}; `umo doctor` says what is missing", Exit.FOUND if said else Exit.CANNOT_RUN)
