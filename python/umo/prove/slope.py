"""The third witness: instructions per request over the tensor's size. Nothing that touches every byte can hide from it.

The model is served inside one process (tests/inproc, `inproc_infer`) under valgrind's callgrind, which counts
every instruction of every thread, `rep movsb` once per byte. For some sizes the cost of a request is fitted as
a + b * bytes; b is 0 for code that does not walk over the tensor, about 0.06 for a copy by 32-byte registers, 1
and more for a copy by bytes. What a run-time library (libc's memcpy above all) spends is charged to the library
that called it. Time inside the kernel is not counted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import paths
from ..server import find_onnxruntime, find_tritonserver
from .classify import Classifier

DEFAULT_SIZES = tuple(mebibytes << 20 for mebibytes in (1, 4, 16, 64))
FLAT = 0.001
"""Instructions per byte up to which a library counts as not walking over the tensor."""

# glibc's memcpy changes its ways with the size: `rep movsb` counts once a byte, wide non-temporal stores a tenth of it,
# so that copying 16 MB can count less than copying 4 MB. One loop for every size makes a copy show as a slope.
_ONE_MEMCPY = ":".join(
    (
        "glibc.cpu.x86_rep_movsb_threshold=0x3fffffffffffffff",
        "glibc.cpu.x86_rep_stosb_threshold=0x3fffffffffffffff",
        "glibc.cpu.x86_non_temporal_threshold=0xfffffffffffffff",
    )
)

_PROPAGATION_ROUNDS = 64


class SlopeUnavailable(RuntimeError):
    """callgrind or the in-process host is missing; the text says what and what to do."""


class SlopeError(RuntimeError):
    """A run failed; the text has its last words."""


# --- callgrind's output ------------------------------------------------------------------------------------------


@dataclass
class Profile:
    """One callgrind dump: self cost by (object, function), and the inclusive cost of each call edge."""

    self_cost: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    edges: dict[tuple[tuple[str, str], tuple[str, str]], int] = field(default_factory=lambda: defaultdict(int))
    trigger: str = ""

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.self_cost.values())

    def by_object(self, is_runtime: Callable[[str], bool]) -> dict[str, float]:
        """Instructions by object; those of a run-time library go to its callers, in the proportion of what the
        calls cost.

        What has no caller outside stays with the run-time library. The sum equals `total`.
        """
        callers: dict[tuple[str, str], list[tuple[tuple[str, str], int]]] = defaultdict(list)
        for (caller, callee), cost in self.edges.items():
            if caller != callee and is_runtime(callee[0]) and cost > 0:
                callers[callee].append((caller, cost))
        out: dict[str, float] = defaultdict(float)
        pending: dict[tuple[str, str], float] = {}
        for function, cost in self.self_cost.items():
            if is_runtime(function[0]) and callers.get(function):
                pending[function] = float(cost)
            else:
                out[function[0]] += cost
        for _ in range(_PROPAGATION_ROUNDS):
            if not pending:
                break
            moved: dict[tuple[str, str], float] = defaultdict(float)
            for function, amount in pending.items():
                whole = sum(cost for _, cost in callers[function])
                for caller, cost in callers[function]:
                    share = amount * cost / whole
                    if is_runtime(caller[0]) and callers.get(caller):
                        moved[caller] += share
                    else:
                        out[caller[0]] += share
            pending = moved
        for (name, _), amount in pending.items():  # what goes round in a cycle of run-time functions
            out[name] += amount
        return dict(out)


def parse_callgrind(path: str | Path) -> Profile:
    """Reads one dump in callgrind's text format (one event, instruction reads)."""
    profile = Profile()
    names: dict[str, dict[str, str]] = {"ob": {}, "fn": {}}
    here = {"ob": "???", "fn": "???"}
    callee = {"ob": "", "fn": ""}
    in_call = False
    named = re.compile(r"(c?)(ob|fn)=(?:\((\d+)\))?\s*(.*)")

    def resolve(kind: str, number: str | None, name: str) -> str:
        if number is None:
            return name
        if name:
            names[kind][number] = name
        return names[kind].get(number, f"({number})")

    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            first = line[:1]
            if first.isdigit() or first in ("+", "-", "*"):
                fields = line.split()
                cost = int(fields[1]) if len(fields) > 1 else 0
                if in_call:
                    caller_key = (here["ob"], here["fn"])
                    callee_key = (callee["ob"] or here["ob"], callee["fn"])
                    profile.edges[(caller_key, callee_key)] += cost
                    in_call = False
                    callee = {"ob": "", "fn": ""}
                else:
                    profile.self_cost[(here["ob"], here["fn"])] += cost
                continue
            match = named.match(line)
            if match:
                is_callee, kind, number, name = match.groups()
                value = resolve(kind, number, name.strip())
                (callee if is_callee else here)[kind] = value
            elif line.startswith("calls="):
                in_call = True
            elif line.startswith("desc: Trigger:"):
                profile.trigger = line.split(":", 2)[2].strip()
            elif line.startswith("events:") and line.split()[1:] != ["Ir"]:
                raise SlopeError(f"{path}: expected the one event Ir, found {line.strip()!r}")
    return profile


# --- the fit -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """instructions per request = base + slope * bytes, by least squares."""

    base: float
    slope: float
    residual: float
    """The largest distance of a point from the line, in instructions."""
    swing: float
    """The costliest point less the cheapest, by the range of the sizes: instructions per byte, never negative."""

    def is_flat(self, limit: float = FLAT) -> bool:
        """Whether the cost does not depend on the size. Judged by the swing and not by the slope: a backend may copy
        small tensors only, or change its method with the size, and then its costs lie on no line."""
        return self.swing <= limit


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """The line through (bytes, instructions) points; needs two different sizes."""
    if len({x for x, _ in points}) < 2:
        raise ValueError("a slope needs at least two different sizes")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    base = mean_y - slope * mean_x
    costs = [y for _, y in points]
    span = max(x for x, _ in points) - min(x for x, _ in points)
    return Fit(base, slope, max(abs(y - base - slope * x) for x, y in points), (max(costs) - min(costs)) / span)


@dataclass(frozen=True)
class SlopeReport:
    """The slopes of one model."""

    sizes: tuple[int, ...]
    """Bytes of all inputs of a request, per point."""
    requests: int
    by_object: dict[str, Fit]
    """Every object that is neither an engine nor excluded."""
    by_role: dict[str, Fit]
    """All roles, the engine included."""
    total: Fit
    """All instructions except the engine's."""
    points: dict[str, tuple[float, ...]]
    """Instructions per request by object, one number a size, the engine's included."""
    engine_objects: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "sizes": list(self.sizes),
            "requests": self.requests,
            "total": vars(self.total),
            "by_role": {role: vars(line) for role, line in self.by_role.items()},
            "by_object": {name: vars(line) for name, line in self.by_object.items()},
            "instructions_per_request": {name: list(values) for name, values in self.points.items()},
            "engine_objects": list(self.engine_objects),
        }


# --- running it --------------------------------------------------------------------------------------------------


def find_inproc_infer() -> Path:
    """UMO_INPROC_INFER, else umo's own (paths.tool). Raises SlopeUnavailable."""
    named = os.environ.get("UMO_INPROC_INFER")
    try:
        built = Path(named) if named else paths.tool("inproc_infer")
    except FileNotFoundError as error:
        raise SlopeUnavailable(f"{error}, or set UMO_INPROC_INFER to the program") from error
    if os.access(built, os.X_OK):
        return built
    raise SlopeUnavailable(f"no in-process host at {built}: run `make build`, or set UMO_INPROC_INFER to the program")


def find_server_library(binary: Path) -> Path:
    """The libtritonserver that a tritonserver program loads."""
    said = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        match = re.search(r"libtritonserver[^ ]* => (\S+)", line)
        if match:
            return Path(match.group(1)).resolve()
    raise SlopeUnavailable(f"{binary} loads no libtritonserver")


def slope(
    model: str,
    repository: str | Path,
    backends: str | Path,
    inputs: Callable[[int], Sequence[str]],
    *,
    sizes: Sequence[int] = DEFAULT_SIZES,
    outputs: Callable[[int], Sequence[str]] | None = None,
    requests: int = 2,
    warmup: int = 2,
    shm: bool = True,
    engine: str | None = None,
    exclude: Iterable[str] = (),
    classifier: Classifier | None = None,
    server_library: str | Path | None = None,
    host: str | Path | None = None,
    extra_args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout_s: float = 600.0,
    progress: Callable[[str], None] | None = None,
) -> SlopeReport:
    """Measures the instructions per request of `model` at several sizes and fits a line.

    inputs, outputs  given a size in bytes, the values for inproc_infer's --input ("NAME:DTYPE:1,2,3") and
                     --output ("NAME:BYTES"); without outputs the host allocates them
    engine           a pattern of object names that count as the engine, besides those that `classifier` knows
    exclude          patterns of objects to leave out altogether

    Raises SlopeUnavailable, SlopeError.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise SlopeUnavailable("valgrind is not installed (package valgrind)")
    program = Path(host) if host else find_inproc_infer()
    if server_library is None:
        server_library = find_server_library(find_tritonserver())
    judge = classifier or Classifier([("engine", engine)] if engine else [])
    left_out = [re.compile(pattern) for pattern in exclude]
    columns: list[dict[str, float]] = []
    actual_sizes = []
    for size in sizes:
        if progress is not None:
            progress(f"{model}: instructions at {size / 2**20:g} MiB")
        profile, said = _run(
            [
                str(program), "--lib", str(server_library), "--repo", str(repository), "--backends", str(backends),
                "--model", model, "--requests", str(requests), "--warmup", str(warmup),
                *(part for text in inputs(size) for part in ("--input", text)),
                *(part for text in (outputs(size) if outputs else ()) for part in ("--output", text)),
                *(["--shm"] if shm else []), *extra_args,
            ],
            valgrind, env, timeout_s,
        )  # fmt: skip
        costs = profile.by_object(lambda name: judge.role(name) == "runtime")
        columns.append({name: cost / requests for name, cost in costs.items()})
        actual_sizes.append(int(said["input_bytes"]))
    names = sorted({name for column in columns for name in column})
    names = [name for name in names if not any(pattern.search(name) for pattern in left_out)]
    points = {name: tuple(column.get(name, 0.0) for column in columns) for name in names}
    roles: dict[str, list[float]] = {}
    for name in names:
        sums = roles.setdefault(judge.role(name), [0.0] * len(columns))
        for i, value in enumerate(points[name]):
            sums[i] += value
    engine_names = tuple(name for name in names if judge.role(name) == "engine")
    total = [sum(points[name][i] for name in names if name not in engine_names) for i in range(len(columns))]
    return SlopeReport(
        sizes=tuple(actual_sizes),
        requests=requests,
        by_object={n: fit(list(zip(actual_sizes, points[n], strict=True))) for n in names if n not in engine_names},
        by_role={role: fit(list(zip(actual_sizes, values, strict=True))) for role, values in roles.items()},
        total=fit(list(zip(actual_sizes, total, strict=True))),
        points=points,
        engine_objects=engine_names,
    )


def _run(
    command: list[str], valgrind: str, env: Mapping[str, str] | None, timeout_s: float
) -> tuple[Profile, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="umo-slope-") as folder:
        out = Path(folder) / "callgrind"
        whole = [valgrind, "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", *command]
        # Under valgrind the preloaded spy would be counted as part of what it watches.
        surroundings = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "UMO_SPY_FILE")}
        surroundings["GLIBC_TUNABLES"] = _ONE_MEMCPY
        engine = find_onnxruntime()
        if engine is not None:
            surroundings.setdefault("UMO_ONNXRUNTIME", str(engine))  # as TritonServer tells its server
        # Valgrind cannot duplicate a mapping: without this, shared memory would go another way than outside of it.
        duplicate = Path(command[0]).resolve().parent.parent / "lib" / "libumo_duplicate.so"
        if duplicate.is_file():
            surroundings["LD_PRELOAD"] = str(duplicate)
        surroundings.update(env or {})
        try:
            done = subprocess.run(
                whole, capture_output=True, text=True, env=surroundings, timeout=timeout_s, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SlopeError(f"{Path(command[0]).name} under callgrind took longer than {timeout_s:.0f} s") from error
        if done.returncode != 0:
            raise SlopeError(f"{Path(command[0]).name} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
        try:
            said = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
        except (StopIteration, ValueError) as error:
            raise SlopeError(f"{Path(command[0]).name} printed no result: {done.stdout[-500:]!r}") from error
        for dump in sorted(Path(folder).iterdir()):
            profile = parse_callgrind(dump)
            if "measured" in profile.trigger:
                return profile, said
        raise SlopeUnavailable(
            f"{command[0]} was built without valgrind's headers (package valgrind): its requests cannot be told apart"
        )
