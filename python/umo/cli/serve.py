"""`umo serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import Exit, app, pairs, stop

if TYPE_CHECKING:
    from ..config import Problem
    from ..server import TritonServer

_EPILOG = (
    "What stands behind -- goes to the server as it is, and comes over what umo would say. Exit status: the server's; "
    "128 and the signal's number where one ended it; 1 a configuration has errors and nothing was started; 2 wrong "
    "command line, or no model to serve; 3 the server did not start (a port is taken, for example). Ctrl-C lets it "
    "finish what is under way; a second one ends it at once."
)


def _table(server: TritonServer, models: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="what is served")
    for name in ("model", "backend", "unified memory", "state"):
        table.add_column(name)
    states = {entry["name"]: entry.get("state") or "not loaded" for entry in server.index()}
    for model in models:
        on = {True: "on", False: "off", None: "-"}[model["unified_memory"]]
        said = [
            f"{key}={value}"
            for key, value in model["settings"].items()
            if isinstance(value, (int, str)) and key != "enable"
        ]
        table.add_row(
            model["model"], model["backend"] or "-", " ".join([on, *said]), states.get(model["model"], "not loaded")
        )
    return table


@app.command(epilog=_EPILOG)
def serve(
    repository: Annotated[list[str], typer.Argument(metavar="REPO... [-- SERVER OPTIONS]", help="Model repositories.")],
    backends: Annotated[
        list[Path] | None,
        typer.Option(help="Where backends are looked for first. Then UMO_BACKENDS, umo's, the server's."),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="Exchange a backend in models with unified_memory.")
    ] = None,
    http_port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535)] = 8002,
    allow_failing: Annotated[bool, typer.Option(help="Serve although some models do not load.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, one JSON object on the standard output.")
    ] = False,
) -> None:
    """Start a real tritonserver over a repository in the mission's form, as it is written.

    It listens on this machine alone, unless told otherwise (-- --http-address=0.0.0.0).
    """
    from ..serve import NothingToServe, Serving, WrongConfig, WrongOption
    from ..server import ServerError, free_ports
    from .live import Live

    # Click has taken the -- away; nothing that begins with a dash is a repository.
    first = next((i for i, path in enumerate(repository) if path.startswith("-")), len(repository))
    folders, options = repository[:first], repository[first:]
    if not folders:
        raise stop("no model repository; name a folder of models before the --", Exit.USAGE)
    for option in options:
        if not option.startswith("--") or ("=" not in option):
            raise stop(f"server option {option!r} has no value; write --NAME=VALUE", Exit.USAGE)
    if any(option.startswith("--model-repository=") for option in options):
        text = "--model-repository would go past umo; name the folder before the --, so that it is converted too"
        raise stop(text, Exit.USAGE)
    asked = (http_port, grpc_port, metrics_port)
    spare = free_ports(3)
    ports = tuple(port or own for port, own in zip(asked, spare, strict=True))

    live = Live(wanted=not as_json)

    def ready(server: TritonServer, models: list[dict[str, Any]]) -> None:
        urls = {"http": server.http_url, "grpc": server.grpc_url, "metrics": f"{server.metrics_url}/metrics"}
        if as_json:
            print(json.dumps({**urls, "pid": server.pid, "models": models}), flush=True)
            return
        try:
            live.console.print(_table(server, models))
        except (OSError, ServerError) as error:
            live.console.print(f"(no list of models: {error})", markup=False)
        live.console.print(
            f"ready: http {urls['http']}, gRPC {urls['grpc']}, metrics http://{urls['metrics']}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        live.watch(server)

    def say(problem: Problem) -> None:
        if not (problem.level == "note" and problem.path.startswith(("optimization.", "backend"))):
            live.say(str(problem))

    replaced = pairs(backend or [], "--backend")
    try:
        serving = Serving(
            folders,
            options=options,
            backends=backends or [],
            replaced=replaced,
            ports=(ports[0], ports[1], ports[2]),
            allow_failing=allow_failing,
            say=say,
            ready=ready,
            ending=live.ending,
            output=live.relay,
        )
        with live:
            status = serving.run()
    except WrongConfig as error:
        raise stop(error, Exit.FOUND) from error
    except (NotADirectoryError, NothingToServe, WrongOption) as error:
        raise stop(error, Exit.USAGE) from error
    except (ServerError, OSError) as error:
        raise stop(error, Exit.CANNOT_RUN) from error
    raise typer.Exit(status)
