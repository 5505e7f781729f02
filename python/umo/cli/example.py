"""`umo example`: something to serve and to ask, a minute after the installation."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import Exit, app, stop

if TYPE_CHECKING:
    from ..server import TritonServer

_EPILOG = (
    "A folder that has the model already is served as it is. Exit status: the server's; 128 and the signal's number "
    "where one ended it; 0 with --ask and --write; 1 a configuration has errors; 2 wrong command line, or the folder "
    "cannot be written; 3 the server did not start or did not answer."
)


def _ask(request: Path, as_json: bool) -> None:
    """Starts a server, asks it once, stops it."""
    from .. import example
    from ..server import TritonServer

    with TritonServer(request.parents[1]) as server:
        answer = example.ask(server, request)
    if as_json:
        print(json.dumps(answer))
        return
    lengths = " ".join(f"{length:g}" for length in answer["lengths"])
    print(f"{example.MODEL} {lengths} cm: {answer['species']} ({100 * max(answer['probability']):.1f} %)")


def _serve(folder: Path, request: Path, ports: tuple[int, int, int], as_json: bool) -> int:
    from .. import example
    from ..serve import Serving
    from ..server import free_ports

    def ready(server: TritonServer, models: list[dict[str, Any]]) -> None:
        command = example.curl(server.http_url, request)
        if as_json:
            print(json.dumps({"http": server.http_url, "grpc": server.grpc_url, "ask": command}), flush=True)
        else:
            print(
                f"ready; ask it from another terminal:\n\n    {command}\n\nCtrl-C ends it.", file=sys.stderr, flush=True
            )

    spare = free_ports(3)
    http, grpc, metrics = (port or own for port, own in zip(ports, spare, strict=True))
    return Serving([folder], ports=(http, grpc, metrics), ready=ready).run()


@app.command(epilog=_EPILOG)
def example(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The model repository to make.")] = Path(
        "umo-example"
    ),
    ask: Annotated[bool, typer.Option("--ask", help="Ask the model once, show its answer, and end.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the repository, and serve nothing.")] = False,
    http_port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535)] = 8002,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """Serve a small model that comes with umo, and say how to ask it.

    The model tells an iris by four lengths. With --ask no folder is left behind, unless one is named.
    """
    from .. import example as examples
    from ..serve import WrongConfig
    from ..server import ServerError

    if ask and write:
        raise stop("--ask and --write exclude each other; choose one", Exit.USAGE)
    with tempfile.TemporaryDirectory(prefix="umo-example-") as scratch:
        target = Path(scratch) if ask and folder == Path("umo-example") else folder
        try:
            request = examples.write(target)
        except OSError as error:
            raise stop(f"{target}: {error.strerror}; name a folder that can be written", Exit.USAGE) from error
        if write:
            print(json.dumps({"folder": str(target), "request": str(request)}) if as_json else f"written: {target}")
            return
        try:
            if ask:
                _ask(request, as_json)
                return
            status = _serve(target, request, (http_port, grpc_port, metrics_port), as_json)
        except WrongConfig as error:
            raise stop(error, Exit.FOUND) from error
        except (ServerError, OSError) as error:
            raise stop(error, Exit.CANNOT_RUN) from error
    raise typer.Exit(status)
