"""Puts the witnesses together: asks a model in every way and says what each witness saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .census import CensusReport
from .classify import ROLES, Classifier
from .served import ProvedServer
from .slope import FLAT, SlopeReport
from .spy import COPIES, DEVICE_COPIES, HOST_COPIES, LARGE_BYTES, Reading
from .traffic import Channel, ModelSpec, channels, differences, make_inputs, shape_for, wire_bytes

SMALL_ALLOWANCE_BYTES = 4096
"""Names, shapes and headers that a backend may copy for one request, in calls of less than LARGE_BYTES."""

PAGES_ALLOWANCE = 256
"""Pages that the server's own bookkeeping may dirty for one request (40 to 130 with a backend that touches nothing)."""


@dataclass(frozen=True)
class Observation:
    """What one request over one transport cost; of several requests the spy's figures are the mean, the pages
    the least."""

    transport: str
    batch: int
    requests: int
    bytes_in: int
    bytes_out: int
    copied: dict[str, int]
    """Bytes a request in copies of at least LARGE_BYTES, by role; host and device copies."""
    device_copied: dict[str, int]
    """The part of `copied` that went through OpenCL or CUDA."""
    small: dict[str, int]
    """Bytes a request in smaller copies, by role."""
    pages_outside: int | None
    """Pages dirtied outside the declared outputs; None without a census."""
    pages_floor: int | None
    """The same for a model that touches nothing, asked in the same way of the same server; None if there was none."""
    pages_by_kind: dict[str, int]
    census: CensusReport | None
    reading: Reading
    compared: bool
    wrong: tuple[str, ...]
    """What is wrong with the answers; empty when they are right, or were not compared."""

    @property
    def pages_over_floor(self) -> int | None:
        """Pages that the backend adds to what the server dirties for any request; pages_outside without a floor."""
        if self.pages_outside is None:
            return None
        return max(0, self.pages_outside - (self.pages_floor or 0))

    def as_json(self, classifier: Classifier) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "transport": self.transport,
            "batch": self.batch,
            "requests": self.requests,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "copied": self.copied,
            "device_copied": self.device_copied,
            "small": self.small,
            "pages_outside": self.pages_outside,
            "pages_floor": self.pages_floor,
            "pages_by_kind": self.pages_by_kind,
            "census": self.census.as_json() if self.census else None,
            "spy": self.reading.as_json(classifier),
            "compared": self.compared,
            "wrong": list(self.wrong),
        }


def observe(
    server: ProvedServer,
    spec: ModelSpec,
    *,
    batch: int = 1,
    size_bytes: int = 16 << 20,
    dims: Mapping[str, Sequence[int]] | None = None,
    transports: Sequence[str] = ("shm", "http", "grpc"),
    requests: int = 3,
    warmup: int = 2,
    census: bool = True,
    floor: ModelSpec | None = None,
    verify: bool = True,
    expected: Mapping[str, np.ndarray] | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
    tolerance: float = 0.0,
    classifier: Classifier | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Observation]:
    """Asks the model over each transport, with the spy and the census watching.

    inputs    what to ask with; default: random tensors of `size_bytes` where the model leaves the shape open
    expected  the right answers; default: those of the first request, so that all transports must agree
    floor     a model with the same inputs and outputs whose backend touches nothing: what it dirties is the server's

    Raises TrafficError, CensusUnavailable, CensusError.
    """
    judge = classifier or Classifier()
    data = dict(inputs or make_inputs(spec, batch=batch, size_bytes=size_bytes, dims=dims or {}))
    bytes_in = sum(len(wire_bytes(array)) for array in data.values())
    found = []
    floors = _floors(server, floor, data, transports, requests, warmup, progress) if floor and census else {}
    with channels(
        spec, data, http_url=server.http_url, grpc_url=server.grpc_url, transports=transports
    ) as (reference, ways):  # fmt: skip
        right = dict(expected) if expected is not None else reference
        bytes_out = sum(len(wire_bytes(array)) for array in reference.values())
        for way in ways:
            if progress is not None:
                progress(f"{spec.name}: {way.transport}, batch {batch}")
            found.append(
                _observe_one(
                    server, way, batch=batch, requests=requests, warmup=warmup, census=census,
                    right=right if verify else None,
                    pages_floor=floors.get(way.transport), tolerance=tolerance, judge=judge,
                    bytes_in=bytes_in, bytes_out=bytes_out,
                )
            )  # fmt: skip
    return found


def _floors(
    server: ProvedServer,
    spec: ModelSpec,
    data: Mapping[str, np.ndarray],
    transports: Sequence[str],
    requests: int,
    warmup: int,
    progress: Callable[[str], None] | None,
) -> dict[str, int]:
    """Pages outside the outputs by transport, for a model that touches nothing."""
    floors = {}
    with channels(
        spec, data, http_url=server.http_url, grpc_url=server.grpc_url, transports=transports
    ) as (_, ways):  # fmt: skip
        for way in ways:
            if progress is not None:
                progress(f"{spec.name}: {way.transport}, what the server dirties by itself")
            for _ in range(warmup):
                way.infer()
            floors[way.transport] = _least_dirty(server, way, requests)[0]
    return floors


def _least_dirty(server: ProvedServer, way: Channel, requests: int) -> tuple[int, CensusReport]:
    """The census of the request that dirtied least: the server's other threads only ever add pages."""
    seen = []
    for _ in range(requests):
        way.prepare()
        server.census.arm()
        way.infer()
        report = server.census.scan()
        seen.append((report.outside(way.outputs), report))
    server.census.disarm()
    return min(seen, key=lambda one: one[0])


def _observe_one(
    server: ProvedServer,
    way: Channel,
    *,
    batch: int,
    requests: int,
    warmup: int,
    census: bool,
    pages_floor: int | None,
    right: Mapping[str, np.ndarray] | None,
    tolerance: float,
    judge: Classifier,
    bytes_in: int,
    bytes_out: int,
) -> Observation:
    wrong: list[str] = []

    def ask() -> None:
        way.prepare()
        way.infer()
        if right is not None:
            wrong.extend(line for line in differences(way.answers(), right, tolerance) if line not in wrong)

    for _ in range(warmup):
        ask()
    # The spy first, without the census's page faults in between; then the census, request by request.
    before = server.spy.settle()
    for _ in range(requests):
        ask()
    reading = server.spy.settle() - before
    report: CensusReport | None = None
    pages: int | None = None
    if census:
        pages, report = _least_dirty(server, way, requests)
    return Observation(
        transport=way.transport,
        batch=batch,
        requests=requests,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        copied=_by_role(reading, judge, COPIES, requests, min_size=LARGE_BYTES),
        device_copied=_by_role(reading, judge, DEVICE_COPIES, requests, min_size=LARGE_BYTES),
        small=_by_role(reading, judge, (*HOST_COPIES, *DEVICE_COPIES), requests, below=LARGE_BYTES),
        pages_outside=pages,
        pages_floor=pages_floor,
        pages_by_kind={**report.by_kind(), "vanished": report.vanished_pages} if report else {},
        census=report,
        reading=reading,
        compared=right is not None,
        wrong=tuple(wrong),
    )


def _by_role(
    reading: Reading,
    judge: Classifier,
    kinds: Sequence[str],
    requests: int,
    *,
    min_size: int = 0,
    below: int | None = None,
) -> dict[str, int]:
    # Rounded up, so that a single stray copy never shows as 0.
    return {
        role: -(-reading.bytes(role, kinds=kinds, min_size=min_size, below=below, classifier=judge) // requests)
        for role in ROLES
    }


def failures(seen: Observation) -> list[str]:
    """Why the spy's figures are no proof that the backend copied nothing; empty when they are one."""
    where = f"{seen.transport}, batch {seen.batch}"
    why = []
    if seen.copied["backend"]:
        why.append(f"{where}: the backend copied {seen.copied['backend']} bytes a request")
    if seen.small["backend"] > SMALL_ALLOWANCE_BYTES:
        why.append(
            f"{where}: the backend copied {seen.small['backend']} bytes a request in pieces below {LARGE_BYTES} bytes, "
            f"more than the {SMALL_ALLOWANCE_BYTES} that headers may need"
        )
    if seen.copied["runtime"]:
        why.append(f"{where}: {seen.copied['runtime']} bytes were copied by a run-time library for an unknown caller")
    if seen.reading.lost_calls or seen.reading.unhooked:
        why.append(
            f"{where}: the spy missed {seen.reading.lost_calls} calls and {seen.reading.unhooked} entry points, so its "
            "figures are a lower bound"
        )
    return why


def page_failures(seen: Observation, max_pages: int | None = None) -> list[str]:
    """Why the census is no proof that a request over shared memory was not copied; empty when it is one.

    Over HTTP and gRPC the server itself fills pages with the tensors, so nothing is judged there. Without
    `max_pages` the limit is PAGES_ALLOWANCE, which says nothing about a request whose tensors are smaller than
    that.
    """
    if seen.transport != "shm" or seen.census is None:
        return []
    where = f"{seen.transport}, batch {seen.batch}"
    limit = PAGES_ALLOWANCE if max_pages is None else max_pages
    why = []
    over = seen.pages_over_floor
    if over is not None and over > limit:
        than = f"more than {limit}" + (f" on top of the server's own {seen.pages_floor}" if seen.pages_floor else "")
        why.append(f"{where}: {over} pages were dirtied outside the outputs, {than}")
    if seen.census.unknown:
        size = sum(size for _, size, _ in seen.census.unknown)
        why.append(f"{where}: the kernel would not watch {len(seen.census.unknown)} mappings of {size} bytes together")
    return why


def slope_failures(report: SlopeReport, limit: float = FLAT) -> list[str]:
    """Why these slopes are no proof that the backend copies nothing; empty when they are one."""
    backend = report.by_role.get("backend")
    if backend is None:
        return ["slope: no instruction of the backend was seen"]
    if not backend.is_flat(limit):
        return [f"slope: the backend's cost varies by {backend.swing:.4f} instructions a byte, more than {limit}"]
    return []


def slope_inputs(spec: ModelSpec, dims: Mapping[str, Sequence[int]], batch: int = 1) -> Callable[[int], list[str]]:
    """The `inputs` argument of slope() for a model: every open dimension grows with the size."""

    def build(size: int) -> list[str]:
        texts = []
        for tensor in spec.inputs:
            shape = shape_for(
                tensor, batched=spec.max_batch_size > 0, batch=batch, size_bytes=size, dims=dims.get(tensor.name)
            )
            texts.append(f"{tensor.name}:{tensor.datatype}:{','.join(map(str, shape))}")
        return texts

    return build
