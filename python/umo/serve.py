"""`umo serve`: a real tritonserver over a model repository in the mission's form, with umo's backends.

The server writes to our own output, gets our signals, and its exit status is ours. What it is given is an overlay of
the repository (overlay.py), kept current by a thread; the same thread has regions unregistered that clients left behind
when they died.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from . import paths, ports
from .config import OWN_BACKENDS, Problem
from .overlay import Overlay, Served
from .server import HOST, ServerError, TritonServer, find_tritonserver, server_options

PORTS = (8000, 8001, 8002)
_LOOK_S = 0.5
_REAP_S = 5.0


class Stopped(Exception):
    """A signal came before the server was ready. Its handler only notes that: what it would raise could come out in the
    middle of anything, an import for example."""


class WrongConfig(Exception):
    """A configuration has errors, and nothing was started."""


class WrongOption(ServerError):
    """An option that the server does not have, or with a value that cannot be."""


class NothingToServe(ServerError):
    """A repository without a model."""


def backend_folders(named: Iterable[str | Path] = ()) -> list[Path]:
    """Where backends are looked for, the first one first: those named, UMO_BACKENDS, umo's own (paths.backends), and
    the server's own. Only those that are there."""
    places = [Path(path) for path in named]
    places += [Path(path) for path in os.environ.get("UMO_BACKENDS", "").split(os.pathsep) if path]
    with contextlib.suppress(FileNotFoundError):
        places.append(paths.backends())
    places.append(find_tritonserver().parent.parent / "backends")
    places.append(Path("/opt/tritonserver/backends"))
    return [place.resolve() for place in dict.fromkeys(places) if place.is_dir()]


def join_backends(folder: Path, places: Iterable[Path]) -> dict[str, Path]:
    """Links every backend into one folder, since a server takes only one; a name is the first one's that has it."""
    folder.mkdir()
    found: dict[str, Path] = {}
    for place in places:
        for entry in sorted(place.iterdir()):
            if entry.is_dir() and entry.name not in found:
                found[entry.name] = entry
                (folder / entry.name).symlink_to(entry)
    return found


def _reaper() -> Callable[[str], Any] | None:
    """What unregisters the regions of dead clients, where umo's client is there."""
    try:
        from .client import reap  # type: ignore[attr-defined]
    except ImportError:
        return None
    return reap


def settings_of(served: Served) -> dict[str, Any]:
    """What `umo serve` says of a model: its backend, and whether its memory is unified (None: no backend of umo's)."""
    own = served.backend in OWN_BACKENDS
    settings = served.model.settings if served.model is not None and isinstance(served.model.settings, dict) else {}
    return {
        "model": served.name,
        "backend": served.backend,
        "unified_memory": settings.get("enable") not in (False, "false") if own else None,
        "converted": served.converted,
        "settings": settings if own else {},
    }


class Serving:
    """One run of `umo serve`.

    repositories  folders of models
    options       further options of the server's; an option that umo would give too is theirs
    say           gets every problem of a configuration
    ready         called once, with the running server and its models
    ending        called when the first signal came, from its handler
    output        as TritonServer's; default: the server writes to our own output
    """

    def __init__(
        self,
        repositories: Sequence[str | Path],
        *,
        options: Sequence[str] = (),
        backends: Iterable[str | Path] = (),
        replaced: Mapping[str, str] | None = None,
        ports: tuple[int, int, int] = PORTS,
        allow_failing: bool = False,
        say: Callable[[Problem], None] = lambda problem: print(problem, file=sys.stderr),
        ready: Callable[[TritonServer, list[dict[str, Any]]], None] = lambda server, models: None,
        ending: Callable[[], None] = lambda: None,
        output: Callable[[bytes], None] | None = None,
    ) -> None:
        self._repositories = list(repositories)
        self._options = list(options)
        self._backends = list(backends)
        self._replaced = dict(replaced or {})
        self._ports = self._asked_ports(ports)
        self._allow_failing = allow_failing
        self._say = say
        self._ready = ready
        self._ending = ending
        self._output = output
        self._signals = 0
        self._signal = 0
        self._serves = False
        self._over = threading.Event()
        self._server: TritonServer | None = None

    def _option(self, name: str) -> str | None:
        """What the user said of an option of the server's."""
        values = [option.partition("=")[2] for option in self._options if option.partition("=")[0] == name]
        return values[-1] if values else None

    def _asked_ports(self, ports: tuple[int, int, int]) -> tuple[int, int, int]:
        asked = [self._option(f"--{what}-port") for what in ("http", "grpc", "metrics")]
        try:
            http, grpc, metrics = (int(said) if said else own for said, own in zip(asked, ports, strict=True))
        except ValueError as error:
            said = ", ".join(value for value in asked if value)
            raise WrongOption(f"a port is a number: {said}; write --http-port=8000, for example") from error
        for port in (http, grpc, metrics):
            if not 0 <= port <= 65535:
                raise WrongOption(f"there is no port {port}; choose one from 1 to 65535")
        return http, grpc, metrics

    def run(self) -> int:
        """Serves until the server ends, and returns its exit status; 128 and more is the signal that ended it.

        Raises ServerError where it does not start, WrongConfig where a configuration has errors (`say` got them) and
        allow_failing is not set, NotADirectoryError where there is no repository.
        """
        with self._signals_forwarded():
            try:
                with Overlay(self._repositories, replaced=self._replaced) as overlay:
                    return self._serve(overlay)
            except Stopped as stopped:
                return 128 + int(stopped.args[0])

    def _stopped(self) -> None:
        """Raises Stopped if a signal has come."""
        if self._signal:
            if self._server is not None:
                self._server.hurry()
            raise Stopped(self._signal)

    def _off(self, what: str) -> bool:
        return (self._option(f"--allow-{what}") or "").lower() in ("false", "0")

    def _check_options(self) -> None:
        """What the server would answer with its whole help, or a minute later, or in other words."""
        known = server_options(find_tritonserver())
        self._stopped()
        for option in self._options:
            name = option.partition("=")[0]
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"is it {near[0]}?" if near else "tritonserver --help lists what it has"
                raise WrongOption(f"this tritonserver has no option {name}; {hint}")
        asked = [
            (what, self._option(f"--{what}-address") or HOST, port)
            for what, port in zip(("http", "grpc", "metrics"), self._ports, strict=True)
            if not self._off(what) and not self._option(f"--reuse-{what}-port")
        ]
        ports.check(asked)

    def _check_models(self, overlay: Overlay) -> None:
        if overlay.models:
            return
        for repository in self._repositories:
            if not os.access(repository, os.R_OK | os.X_OK):
                raise NothingToServe(f"{repository} cannot be read; its owner or root can: check its permissions")
        named = ", ".join(str(repository) for repository in self._repositories)
        if self._option("--model-control-mode") in ("poll", "explicit"):
            self._say(Problem("note", named, "", "no model yet"))
            return
        raise NothingToServe(
            f"no model in {named}; a model is a folder with config.pbtxt and its files in 1/ (`umo example` writes one)"
        )

    def _prepare(self, overlay: Overlay) -> None:
        """Says what is wrong with the configurations, and finds the backends."""
        problems = [problem for served in overlay.models.values() for problem in served.problems]
        for problem in problems:
            self._say(problem)
        wrong = sorted({problem.file for problem in problems if problem.level == "error"})
        if wrong and not self._allow_failing:
            raise WrongConfig(f"not started: {len(wrong)} configuration{'s' if len(wrong) > 1 else ''} with errors")
        self._check_models(overlay)
        self._check_options()
        places = backend_folders(self._backends)
        join_backends(overlay.root / "backends", places)
        ours = [name for place in places for name in OWN_BACKENDS if (place / name).is_dir()]
        if not ours:
            raise ServerError("no backends of umo found; run `make build`, or set UMO_BACKENDS")

    def _serve(self, overlay: Overlay) -> int:
        self._prepare(overlay)
        self._server = server = TritonServer(
            overlay.repositories,
            backend_directory=overlay.root / "backends",
            extra_args=self._options,
            ports=self._ports,
            allow_failing=self._allow_failing,
            shares_output=True,
            output=self._output,
            cancel=self._stopped,
        )
        follower = threading.Thread(target=self._follow, args=(overlay,), name="umo-serve", daemon=True)
        try:
            self._stopped()
            server.start()
            self._serves = True  # from here on a signal is the server's
            self._stopped()
            self._ready(server, [settings_of(served) for _, served in sorted(overlay.models.items())])
            follower.start()
            while server.running and not self._over.wait(0.1):
                pass
            status = server.wait()
        finally:
            self._over.set()
            if follower.is_alive():
                follower.join()
            server.stop()
        return status if status >= 0 else 128 - status

    def _follow(self, overlay: Overlay) -> None:
        reap = _reaper()
        url = self._server.http_url if self._server is not None else ""
        waited = _REAP_S
        while not self._over.is_set() and self._server is not None and self._server.running:
            try:
                for problem in overlay.sync():
                    self._say(problem)
            except OSError as error:  # a full disk, say: it may be over when we look again
                self._say(Problem("warning", str(overlay.root), "", f"cannot follow the repository: {error}"))
                self._over.wait(_REAP_S)
            if reap is not None and waited >= _REAP_S:
                waited = 0.0
                # A server that is going down, or one without shared memory: there is nothing to unregister then.
                with contextlib.suppress(Exception):
                    reap(url)
            waited += _LOOK_S
            self._over.wait(_LOOK_S)

    @contextlib.contextmanager
    def _signals_forwarded(self) -> Any:
        def forward(number: int, frame: FrameType | None) -> None:
            del frame
            self._signals += 1
            if self._signals == 1:
                self._signal = number
                self._ending()
                if not self._serves:
                    return
            # Once: it finishes what is under way. Again: the user does not want to wait.
            with contextlib.suppress(ProcessLookupError, ServerError):
                # The server knows two of them; the third would end it in the middle of things.
                polite = signal.SIGTERM if number == signal.SIGHUP else number
                if self._server is not None:
                    os.kill(self._server.pid, polite if self._signals == 1 else signal.SIGKILL)

        old = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
