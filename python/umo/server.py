"""Starts the real tritonserver on free loopback ports and stops it without remains.

The server is never left behind: it is told by the kernel to die with the process that started it (PR_SET_PDEATHSIG).
That signal is bound to the *thread* that forked, so a keeper thread starts the server and lives exactly as long as it.
A small Python program between the two sets the signal and then becomes the server; the environment meant for the
server (LD_PRELOAD above all) is applied there, and never touches Python itself.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import paths

HOST = "127.0.0.1"
_PORT_ATTEMPTS = 5
_REPEATED = frozenset({"--backend-config", "--load-model", "--model-repository"})  # each time adds to them

# argv: the expected parent, the environment's changes as JSON (null removes), then the server's own command line.
_BECOME_SERVER = """
import ctypes, json, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended before the server could start")
env = dict(os.environ)
for key, value in json.loads(sys.argv[2]).items():
    if value is None:
        env.pop(key, None)
    else:
        env[key] = value
os.execve(sys.argv[3], sys.argv[3:], env)
"""


class ServerError(RuntimeError):
    """The server did not start, a model did not load, or a request to the server's own endpoints failed."""


def default_backend_directory() -> Path:
    """UMO_BACKENDS, else this package's own (paths.backends). Raises ServerError."""
    named = os.environ.get("UMO_BACKENDS")
    if named:
        return Path(named)
    try:
        return paths.backends()
    except FileNotFoundError as error:
        raise ServerError(f"{error}, or set UMO_BACKENDS to the folder that holds umo_identity, umo_kernel") from error


def find_tritonserver() -> Path:
    """UMO_TRITONSERVER, else the binary in the nvidia-pytriton package, else `tritonserver` on PATH.

    Raises ServerError when there is none.
    """
    named = os.environ.get("UMO_TRITONSERVER")
    if named:
        if not os.access(named, os.X_OK):
            raise ServerError(f"UMO_TRITONSERVER names {named}, which is no executable file")
        return Path(named)
    inside = Path("pytriton/tritonserver/bin/tritonserver")
    places = [Path(sysconfig.get_path("purelib"))]
    package = importlib.util.find_spec("pytriton")  # found, not imported
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parents[1])
    root = paths.source_tree()
    if root is not None:
        places += sorted((root / ".venv" / "lib").glob("python3*/site-packages"))
    for place in places:
        if os.access(place / inside, os.X_OK):
            return place / inside
    on_path = shutil.which("tritonserver")
    if on_path:
        return Path(on_path)
    raise ServerError(f"no tritonserver found; {_how_to_get_one(root)}, or set UMO_TRITONSERVER to the binary")


def _how_to_get_one(root: Path | None) -> str:
    if root is not None:
        return "run scripts/setup"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "install Triton Inference Server (the package index has one for Linux on x86-64 only)"
    # The package's own dependencies ask for a NumPy that newer Pythons lack, and none of them is used.
    newer = sys.version_info >= (3, 13)
    return "pip install --no-deps nvidia-pytriton==0.7.0" if newer else "pip install 'umo[server]'"


def find_onnxruntime() -> Path | None:
    """libonnxruntime.so of the onnxruntime package beside us, for UMO_ONNXRUNTIME; None when it is not installed."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return None
    return next(iter(sorted((Path(found.origin).parent / "capi").glob("libonnxruntime.so*"))), None)


@functools.cache
def server_options(binary: Path) -> frozenset[str]:
    """The option names that this server knows, from its --help."""
    # It prints the help to stderr and leaves with 1.
    # A session of its own: Ctrl-C at the terminal is for us alone.
    said = subprocess.run(
        [binary, "--help"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        start_new_session=True,
    )
    options = frozenset(re.findall(r"^\s*(--[a-z0-9-]+)", said.stdout + said.stderr, re.MULTILINE))
    if "--model-repository" not in options:
        raise ServerError(f"{binary} does not run: {(said.stderr or said.stdout).strip()[:500]}")
    return options


@dataclass(frozen=True)
class Sample:
    """One line of /metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Metrics:
    """What /metrics said at one moment."""

    samples: Sequence[Sample] = field(default_factory=list)

    def select(self, name: str, **labels: str) -> list[Sample]:
        """All samples of this name that have these labels."""
        return [s for s in self.samples if s.name == name and all(s.labels.get(k) == v for k, v in labels.items())]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name that have these labels; 0 when there is none."""
        return sum(s.value for s in self.select(name, **labels))

    def since(self, before: Metrics) -> Metrics:
        """What was added since `before`; a series that was not there counts from 0."""
        old = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in before.samples}
        return Metrics(
            [
                Sample(s.name, s.labels, s.value - old.get((s.name, tuple(sorted(s.labels.items()))), 0.0))
                for s in self.samples
            ]
        )


_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?$")
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def parse_metrics(text: str) -> Metrics:
    """Reads the Prometheus text form. Lines that are not of it raise ValueError."""
    samples = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"not a line of Prometheus text: {line[:120]!r}")
        labels = {
            key: re.sub(r'\\[n"\\]', lambda m: _ESCAPES[m.group()], value)
            for key, value in _LABEL.findall(match.group(2) or "")
        }
        samples.append(Sample(match.group(1), labels, float(match.group(3))))
    return Metrics(samples)


def _reachable(address: str) -> str:
    """Where a server is reached that listens there."""
    return HOST if address in ("0.0.0.0", "::", "[::]") else address.strip("[]")


def _url(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held at once so that they differ."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            sock.bind((HOST, 0))
            ports.append(sock.getsockname()[1])
        return ports


class TritonServer:
    """A running tritonserver; use it as a context manager.

    model_repository   one folder or several
    backend_directory  default: default_backend_directory()
    env                changes to the server's environment; None removes a variable. UMO_ONNXRUNTIME, which tells
                       umo_onnxruntime where its engine is, is set from the installed package unless it is set already
    log_path           where its output goes; default: a temporary file that is removed after a clean end
    allow_failing      serve although a model failed to load
    explicit           load only `load_models` and what load() names
    backend_config     {"backend": {"key": "value"}}; the key "" of the outer mapping is the global setting
    extra_args         further command line options, as they are; one that we would give too is theirs
    ports              of HTTP, gRPC and metrics; default: free ones. A port that is taken is then an error
    shares_output      the server writes to our own output and not to a log
    cancel             called now and then while start() waits; what it raises ends the wait and the server
    output             gets each line that the server says, on a thread of its own, instead of either
    command_prefix     a program that runs the server, e.g. ("valgrind", "--tool=callgrind")
    """

    def __init__(
        self,
        model_repository: str | Path | Iterable[str | Path],
        *,
        backend_directory: str | Path | None = None,
        env: Mapping[str, str | None] | None = None,
        log_path: str | Path | None = None,
        log_verbose: int = 0,
        allow_failing: bool = False,
        explicit: bool = False,
        load_models: Iterable[str] = (),
        backend_config: Mapping[str, Mapping[str, str]] | None = None,
        extra_args: Sequence[str] = (),
        command_prefix: Sequence[str] = (),
        ports: tuple[int, int, int] | None = None,
        shares_output: bool = False,
        output: Callable[[bytes], None] | None = None,
        cancel: Callable[[], None] = lambda: None,
        ready_timeout_s: float = 120.0,
        stop_timeout_s: float = 30.0,
    ) -> None:
        self._repositories = (
            [Path(model_repository)]
            if isinstance(model_repository, (str, Path))
            else [Path(path) for path in model_repository]
        )
        self._backend_directory = Path(backend_directory) if backend_directory else default_backend_directory()
        self._env = dict(env or {})
        engine = find_onnxruntime()
        if engine is not None and "UMO_ONNXRUNTIME" not in {*os.environ, *self._env}:
            self._env["UMO_ONNXRUNTIME"] = str(engine)
        self._log_is_temporary = log_path is None
        self._log_path = Path(log_path) if log_path else None
        self._log_verbose = log_verbose
        self._allow_failing = allow_failing
        self._explicit = explicit
        self._load_models = list(load_models)
        self._backend_config = {name: dict(pairs) for name, pairs in (backend_config or {}).items()}
        self._extra_args = list(extra_args)
        self._command_prefix = list(command_prefix)
        self._ports = ports
        self._output = output
        self._cancel = cancel
        self._shares_output = shares_output or output is not None
        self._ready_timeout_s = ready_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._stop_signal = signal.SIGINT
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._host = _reachable(self._asked("--http-address") or HOST)
        self._metrics_host = _reachable(self._asked("--metrics-address") or HOST)
        self.binary = find_tritonserver()
        self.http_port = self.grpc_port = self.metrics_port = 0

    # --- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(keep_log=kind is not None)

    def start(self) -> None:
        """Starts the server and waits until it is ready. Raises ServerError, with the reason out of its log."""
        if self._process is not None:
            raise ServerError("this server was started already")
        for repository in self._repositories:
            if not repository.is_dir():
                raise ServerError(f"no model repository at {repository}")
        if not self._backend_directory.is_dir():
            raise ServerError(f"no backends at {self._backend_directory}: run `make build`, or set UMO_BACKENDS")
        if self._log_path is None and not self._shares_output:
            handle, name = tempfile.mkstemp(prefix="tritonserver-", suffix=".log")
            os.close(handle)
            self._log_path = Path(name)
        if self._log_path is not None:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
        attempts = 1 if self._ports else _PORT_ATTEMPTS
        for attempt in range(1, attempts + 1):
            # Somebody may take a port between our look and the server's bind: then it ends, and is started again.
            self.http_port, self.grpc_port, self.metrics_port = self._ports or free_ports(3)
            self._spawn()
            try:
                self._wait_ready()
                return
            except BaseException:
                log = self.log()
                self.stop(keep_log=True)
                taken = re.search(r"already in use|failed to start (HTTP|GRPC|Metrics)|Address already", log, re.I)
                if not taken or attempt == attempts:
                    raise

    def _command(self) -> list[str]:
        known = server_options(self.binary)
        command = [*self._command_prefix, str(self.binary)]
        command += [f"--model-repository={path}" for path in self._repositories]
        command += [
            f"--backend-directory={self._backend_directory}",
            f"--http-address={HOST}",
            f"--http-port={self.http_port}",
            f"--grpc-address={HOST}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
            f"--log-verbose={self._log_verbose}",
            f"--exit-on-error={'false' if self._allow_failing else 'true'}",
            f"--strict-readiness={'false' if self._allow_failing else 'true'}",
        ]
        # Options that not every version has.
        for option, value in (
            ("--metrics-address", HOST),
            ("--allow-gpu-metrics", "false"),
            ("--allow-cpu-metrics", "false"),
            ("--allow-client-shm", "true"),  # from 2.69 on client shared memory is off by default
        ):
            if option in known:
                command.append(f"{option}={value}")
        if self._explicit:
            command.append("--model-control-mode=explicit")
            command += [f"--load-model={name}" for name in self._load_models]
        for backend, pairs in self._backend_config.items():
            prefix = f"{backend}," if backend else ""
            command += [f"--backend-config={prefix}{key}={value}" for key, value in pairs.items()]
        theirs = {argument.partition("=")[0] for argument in self._extra_args}
        ours = [argument for argument in command if argument.partition("=")[0] not in theirs - _REPEATED]
        return ours + self._extra_args

    def _spawn(self) -> None:
        command = self._command()
        program = shutil.which(command[0]) or command[0]
        wrapped = [sys.executable, "-I", "-S", "-c", _BECOME_SERVER, str(os.getpid()), json.dumps(self._env), program]
        wrapped += command[1:]
        born = threading.Event()
        trouble: list[BaseException] = []
        log_path, output = self._log_path, self._output

        def keep() -> None:
            try:
                with log_path.open("wb") if log_path else contextlib.nullcontext() as log:
                    out, err = (subprocess.PIPE, subprocess.STDOUT) if output is not None else (log, log)
                    process = subprocess.Popen(
                        wrapped, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
                    )
                self._process = process
            except BaseException as error:
                trouble.append(error)
                return
            finally:
                born.set()
            if process.stdout is not None and output is not None:
                with process.stdout:
                    for line in process.stdout:
                        with contextlib.suppress(Exception):  # whoever shows it, the server must not stand still
                            output(line)
            process.wait()

        self._keeper = threading.Thread(target=keep, name="tritonserver-keeper", daemon=True)
        self._keeper.start()
        try:
            born.wait()
        except BaseException:  # a signal: stop() can only end what it knows
            born.wait()
            raise
        if trouble:
            raise ServerError(f"cannot start {program}: {trouble[0]}") from trouble[0]

    def _asked(self, option: str) -> str | None:
        """What the further options say of one of the server's."""
        values = [a.partition("=")[2] for a in self._extra_args if a.partition("=")[0] == option]
        return values[-1] if values else None

    def _has_metrics(self) -> bool:
        """Whether there will be metrics at metrics_url."""
        return self._asked("--allow-metrics") not in ("false", "0") and self._asked("--metrics-port") is None

    def _wait_ready(self) -> None:
        assert self._process is not None
        if self._asked("--allow-http") in ("false", "0"):
            return  # nobody to ask
        deadline = time.monotonic() + self._ready_timeout_s
        pause_s = 0.02
        while True:
            self._cancel()
            if self._process.poll() is not None:
                raise ServerError(
                    f"tritonserver ended with {self._process.returncode} before it was ready\n{self._why()}"
                )
            try:
                if self._get("/v2/health/ready", timeout_s=5)[0] == 200:
                    if not self._has_metrics():
                        return
                    # The port of the metrics is opened last.
                    self._get("/metrics", port=self.metrics_port, timeout_s=5)
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise ServerError(f"tritonserver was not ready within {self._ready_timeout_s:.0f} s\n{self._why()}")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.2)

    def _why(self) -> str:
        """The lines of the log that say what went wrong, else its last lines."""
        if self._shares_output:
            return "  (what it said is above)"
        lines = self.log().splitlines()
        # A server without a GPU always says the one about CUDA.
        errors = [
            line
            for line in lines
            if re.match(r"E\d{4} |error:|Fatal|.*rror while loading", line, re.I) and "CudaDriverHelper" not in line
        ]
        shown = errors[-12:] or lines[-12:]
        return "\n".join("  " + line for line in shown) + f"\n  (all of the log: {self._log_path})"

    def wait(self) -> int:
        """Waits until the server ends by itself, and returns its exit status (negative: the signal)."""
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.wait()

    def hurry(self, timeout_s: float = 3.0) -> None:
        """How long stop() waits for a polite end: a server that still loads has no request to finish."""
        self._stop_timeout_s = min(self._stop_timeout_s, timeout_s)
        self._stop_signal = signal.SIGTERM  # the program that becomes the server would complain of SIGINT

    def stop(self, keep_log: bool = False) -> int | None:
        """Ends the server, politely first. Returns its exit status (negative: the signal), None if there was none."""
        process = self._process
        if process is None:
            return None
        for what, wait_s in ((self._stop_signal, self._stop_timeout_s), (signal.SIGTERM, 5.0), (signal.SIGKILL, None)):
            if process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(what)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
        # Helpers of other backends share its process group, which is ours alone (its own session).
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if self._keeper is not None:
            self._keeper.join()
        self._process = self._keeper = None
        if self._log_is_temporary and not keep_log and self._log_path is not None:
            self._log_path.unlink(missing_ok=True)
            self._log_path = None
        return process.returncode

    # --- asking it ----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def http_url(self) -> str:
        """host:port, as tritonclient.http wants it."""
        return _url(self._host, self.http_port)

    @property
    def grpc_url(self) -> str:
        """host:port, as tritonclient.grpc wants it."""
        return _url(_reachable(self._asked("--grpc-address") or HOST), self.grpc_port)

    @property
    def metrics_url(self) -> str:
        """host:port of /metrics."""
        return _url(self._metrics_host, self.metrics_port)

    @property
    def log_path(self) -> Path | None:
        """Where the log is."""
        return self._log_path

    def log(self) -> str:
        """What the server has said so far."""
        if self._log_path is None or not self._log_path.exists():
            return ""
        return self._log_path.read_text(errors="replace")

    def metrics(self) -> Metrics:
        """Fetches and reads /metrics."""
        status, body = self._get("/metrics", port=self.metrics_port)
        if status != 200:
            raise ServerError(f"/metrics answered {status}: {body[:200]!r}")
        return parse_metrics(body.decode())

    def load(self, name: str, config: Mapping[str, Any] | None = None) -> None:
        """Loads a model (model control must be explicit); `config` replaces its configuration."""
        parameters = {"config": json.dumps(config)} if config is not None else {}
        self._control(name, "load", {"parameters": parameters} if parameters else {})

    def unload(self, name: str, timeout_s: float = 30.0) -> None:
        """Unloads a model and waits until it is gone."""
        self._control(name, "unload", {})
        deadline = time.monotonic() + timeout_s
        while self.model_state(name) not in ("UNAVAILABLE", ""):
            if time.monotonic() > deadline:
                raise ServerError(f"model {name} was not unloaded within {timeout_s:.0f} s")
            time.sleep(0.02)

    def index(self) -> list[dict[str, str]]:
        """The repository index: name, version, state, reason of each model."""
        status, body = self._request("POST", "/v2/repository/index", b"{}")
        if status != 200:
            raise ServerError(f"the repository index answered {status}: {body[:200]!r}")
        return json.loads(body)

    def model_state(self, name: str) -> str:
        """READY, UNAVAILABLE, LOADING, UNLOADING, or empty for an unknown model."""
        states = [entry.get("state", "") for entry in self.index() if entry["name"] == name]
        return "READY" if "READY" in states else (states[0] if states else "")

    def model_reason(self, name: str) -> str:
        """Why a model is not available, in the server's words; empty when there is nothing to say."""
        return "; ".join(e["reason"] for e in self.index() if e["name"] == name and e.get("reason"))

    def _control(self, name: str, verb: str, body: Mapping[str, Any]) -> None:
        status, said = self._request(
            "POST", f"/v2/repository/models/{name}/{verb}", json.dumps(body).encode(), timeout_s=self._ready_timeout_s
        )
        if status != 200:
            try:
                reason = json.loads(said)["error"]
            except (ValueError, KeyError, TypeError):
                reason = said.decode(errors="replace")
            raise ServerError(f"{verb} of model {name}: {reason}")

    def _get(self, path: str, port: int | None = None, timeout_s: float = 30.0) -> tuple[int, bytes]:
        return self._request("GET", path, None, port, timeout_s)

    def _request(
        self, method: str, path: str, body: bytes | None, port: int | None = None, timeout_s: float = 30.0
    ) -> tuple[int, bytes]:
        host = self._metrics_host if port == self.metrics_port else self._host
        connection = http.client.HTTPConnection(host, port or self.http_port, timeout=timeout_s)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer from the server ({error}); check that the port is its HTTP port") from error
        finally:
            connection.close()
