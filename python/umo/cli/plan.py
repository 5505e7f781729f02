"""`umo plan`: where buffers with known lifetimes lie in one block of memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import Exit, app, stop

if TYPE_CHECKING:
    from .. import planning

_EPILOG = (
    "Exit status: 0 a plan; 1 none of that capacity, or the file is wrong; 2 no such file; "
    "3 libumo or Pillow is not there; 130 Ctrl-C (the best plan so far is written all the same)."
)
_PROOFS = {
    "open": "none: a better plan may exist",
    "at_bound": "optimal: as long as what is in use at once",
    "exhausted": "optimal: all that is shorter was tried",
    "infeasible": "no plan fits the capacity",
}


def _show(plan: planning.Plan) -> None:
    rows = [("buffers", f"{len(plan.buffers):,}"), ("bound", f"{plan.bound:,} bytes")]
    if plan.peak is not None:
        rows += [("peak", f"{plan.peak:,} bytes"), ("gap", f"{plan.gap or 0:.2%}")]
    rows += [("proof", _PROOFS[plan.proof]), ("search", f"{plan.nodes:,} nodes, {plan.seconds:.3f} s")]
    for name, value in rows:
        print(f"{name:8} {value}")


def _shapes(texts: list[str]) -> dict[str, list[int]]:
    shapes = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        sizes = numbers.split("x")
        if not name or not all(n.isdecimal() and int(n) > 0 for n in sizes):
            raise stop(f"--shape {text!r}: write name=1x3x224x224", Exit.USAGE)
        shapes[name] = [int(n) for n in sizes]
    return shapes


def _draw(plan: planning.Plan, svg: Path | None, png: Path | None) -> None:
    from .. import planning

    if svg is not None:
        svg.write_text(planning.svg(plan), encoding="utf-8")
    if png is not None:
        try:
            planning.png(plan, png)
        except ImportError as error:
            raise stop("--png needs Pillow; install umo[demo], or use --svg", Exit.CANNOT_RUN) from error


@app.command(epilog=_EPILOG)
def plan(
    file: Annotated[Path | None, typer.Argument(help="CSV: id,lower,upper,size and maybe alignment.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Plan an ONNX model's tensors between its nodes instead.")] = None,
    shape: Annotated[list[str] | None, typer.Option(help="With --onnx: an input's, as name=1x3x224x224.")] = None,
    capacity: Annotated[int, typer.Option(help="Bytes that will do; 0 looks for the shortest block.", min=0)] = 0,
    time: Annotated[float, typer.Option(help="Seconds to look for a better plan.", min=0.001, max=1e9)] = 10.0,
    seed: Annotated[int, typer.Option(help="Another number tries things in another order.", min=0)] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan: the CSV and offset.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the plan.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the plan; needs Pillow.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the offsets in FILE instead of making others.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """Find where buffers with known lifetimes lie in one block of memory, and how short it can be."""
    from .. import planning

    try:
        if (file is None) == (onnx is None):
            raise stop("name a CSV file, or a model with --onnx; see `umo plan --help`", Exit.USAGE)
        offsets = None
        if file is not None:
            buffers, offsets = planning.read(file)
        else:
            assert onnx is not None
            graph = planning.from_onnx(onnx, _shapes(shape or []))
            buffers = graph.buffers
            if graph.unknown:
                print(f"umo: {len(graph.unknown)} tensors of no known size left out; give --shape", file=sys.stderr)
        if check:
            if offsets is None:
                raise stop(f"{file or onnx} has no column offset; make a plan with `umo plan -o`", Exit.FOUND)
            print(f"valid    peak {planning.check(buffers, offsets):,} bytes")
            return
        if capacity >= 2**63:
            raise stop(f"a capacity of {capacity} bytes is too much; give 2^63 - 1 at most", Exit.USAGE)
        made = planning.solve(buffers, capacity=capacity, seconds=time, seed=seed)
    except ImportError as error:
        raise stop("--onnx needs the package onnx; install it (pip install onnx)", Exit.CANNOT_RUN) from error
    except planning.PlanError as error:
        raise stop(f"{error}; correct it there", Exit.FOUND) from error
    except FileNotFoundError as error:
        if error.errno is None:  # not the file: the library, in words of its own
            raise stop(str(error), Exit.CANNOT_RUN) from error
        raise stop(f"{file or onnx}: no such file; check the path", Exit.USAGE) from error
    fits = planning.first_fit(buffers) if onnx is not None else None
    if made.offsets is not None:
        if output is not None:
            planning.write(output, buffers, made.offsets)
        _draw(made, svg, png)
    if as_json:
        fields = ("peak", "bound", "live", "gap", "proof", "optimal", "interrupted", "nodes", "seconds")
        figures = {name: getattr(made, name) for name in fields}
        print(
            json.dumps({"buffers": len(buffers), "capacity": capacity or None, **figures, "first_fit": fits}, indent=2)
        )
    else:
        _show(made)
        if fits is not None:
            print(f"unplanned {fits:,} bytes (first fit as they come), all apart {sum(b.size for b in buffers):,}")
    if made.complaint:
        raise stop(f"{made.complaint}; allow more bytes or more --time", Exit.FOUND)
    if made.interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
