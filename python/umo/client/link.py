"""What a process knows of one server: whether it shares memory, how large the answers of its models are, which rings
it has for them.

Nothing here talks to the server. What has to be asked is yielded as a Control; the clients, blocking or asynchronous,
ask it and send the answer in. So there is one implementation of every decision for four clients.

The first request of a kind (a model, its inputs' shapes) travels as the original would send it, and its answer tells
how large the outputs are. From the second on there is a ring for that kind, and its tensors stay where they are.
Wherever a lane cannot be had the tensor travels in the request, so the worst case is what the original does.
"""

from __future__ import annotations

import contextlib
import contextvars
import ipaddress
import logging
import math
import os
import re
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from umo.client import segment
from umo.client.budget import Budget
from umo.client.ring import Lease, Ring, Slot

LOG = logging.getLogger("umo.client")

SMALL_BYTES = int(os.environ.get("UMO_CLIENT_SMALL_BYTES", 32 << 10))
"""A request whose tensors are smaller together travels as the original: copying is cheaper than naming a lane."""
LOOSE_BYTES = 256 << 10
"""A tensor of this size gets a place in shared memory although no request like its own was seen yet."""
KINDS = 1024
"""So many kinds of requests are remembered for a server, the latest ones."""
RETRY_S = 2.0
"""Until what failed for a reason that may pass is tried again."""
ANY = ""  # the model of a lane that is for any
PAUSE = "pause"  # a Control that only takes time: the seconds
OUTPUTS = ">"  # claimed in a slot by the request whose outputs go there

_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("UINT16", "INT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FP32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FP64"), 8),
}


def byte_size(datatype: str, shape: Sequence[int]) -> int | None:
    """Of a tensor; None where the type does not tell (BYTES)."""
    item = _ITEM_BYTES.get(datatype)
    return None if item is None else item * math.prod(shape)


@dataclass(frozen=True)
class Transport:
    """How a client's tensors travel, and why."""

    shared_memory: bool
    reason: str

    def __str__(self) -> str:
        return f"{'shared memory' if self.shared_memory else 'in the requests'}: {self.reason}"


class Control(NamedTuple):
    """A method of tritonclient's client, to be called with these arguments."""

    method: str
    arguments: tuple[Any, ...] = ()


class Source(NamedTuple):
    """An input as the caller gave it. `data` is None for what is to be left alone."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Lease | bytes | None


class Wire(Protocol):
    """What differs between the protocols: the caller's objects, read, and those for the wire, made."""

    def source(self, tensor: Any) -> Source:
        """What an InferInput says."""

    def placed_input(self, source: Source, lease: Lease) -> Any:
        """An InferInput that says where the data lies."""

    def requested(self, output: Any) -> tuple[str, bool]:
        """An InferRequestedOutput's name, and whether its data may lie in a lane."""

    def output(self, name: str, lease: Lease | None) -> Any:
        """An InferRequestedOutput."""

    def outputs(self, result: Any) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type and shape of what a result holds."""

    def answered(self, error: BaseException) -> bool:
        """Whether this error is the server's last word on the request: it touches no tensor of it any more."""


@dataclass(eq=False)
class Kind:
    """Requests of one model with inputs of the same types and shapes."""

    model: str
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    seen: int = 0
    sizes: dict[str, int | None] = field(default_factory=dict)  # of outputs; None: not always the same, or not known
    everything: tuple[str, ...] | None = None  # what comes when no output is named
    ring: Ring | None = None
    retry_at: float = 0.0

    def lanes(self) -> list[tuple[str, int]]:
        """The lanes of a ring for it."""
        rows = [(f"<{name}", byte_size(datatype, shape)) for name, datatype, shape in self.inputs]
        rows += [(f">{name}", size) for name, size in self.sizes.items()]
        return [(name, size) for name, size in rows if size]


class Refused(Exception):
    """The server's own no to a Control; raised into prepare() by whoever asked."""


_budget: Budget | None = None
_links: dict[tuple[str, str], Link] = {}
_hints: OrderedDict[tuple[str, str, tuple[int, ...]], weakref.ref[Kind]] = OrderedDict()
_recent: weakref.ref[Link] | None = None
_lock = threading.Lock()
# The slot that this thread or task filled last: the next input of the same request joins it.
_open: contextvars.ContextVar[tuple[Kind, weakref.ref[Slot]] | None] = contextvars.ContextVar("umo_open", default=None)


def budget() -> Budget:
    """Of this process."""
    global _budget
    with _lock:
        if _budget is None:
            _budget = Budget()
        return _budget


def link_for(protocol: str, url: str) -> Link:
    """The one link of this process to an address."""
    with _lock:
        return _links.setdefault((protocol, url), Link(_off_by_default(url)))


def _off_by_default(url: str) -> str:
    if os.environ.get("UMO_CLIENT_SHARED_MEMORY", "1").lower() in ("0", "off", "false"):
        return "UMO_CLIENT_SHARED_MEMORY turns it off"
    if reason := segment.unavailable():
        return reason
    return "" if is_local(url) else "the server's address is not of this machine (loopback or a Unix socket)"


def is_local(url: str) -> bool:
    """Whether an address of tritonclient's is loopback or a Unix socket."""
    if re.match(r"unix(-abstract)?:", url):
        return True
    rest = re.sub(r"^(ipv4|ipv6|dns):/*", "", url).split("/", 1)[0]
    bracketed = re.match(r"\[(.*)\]", rest)
    host = bracketed.group(1) if bracketed else (rest if rest.count(":") > 1 else rest.rsplit(":", 1)[0])
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%", 1)[0]).is_loopback
    except ValueError:
        return False


class Attempt:
    """One request on its way: what to send, and what to do with what comes of it."""

    __slots__ = ("inputs", "kind", "link", "named", "outputs", "places", "sequence", "slots", "unusual", "wire")

    def __init__(self, link: Link, wire: Wire, kind: Kind | None, sequence: bool, named: bool) -> None:
        self.link, self.wire, self.kind, self.sequence, self.named = link, wire, kind, sequence, named
        self.inputs: list[Any] | None = None  # None: the caller's own
        self.outputs: list[Any] | None = None  # None: the caller's own
        self.places: dict[str, Lease] = {}  # of outputs
        self.slots: list[Slot] = []  # held until the answer is there
        self.unusual: set[str] = set()  # outputs that come as something else than the tensor

    def leave(self) -> None:
        """Sends what the caller gave, as it is."""
        self.inputs = self.outputs = None
        self.places = {}
        self.slots = []

    def done(self, result: Any) -> dict[str, Lease]:
        """Notes what was answered; returns where outputs lie. The slots are the result's from now on."""
        places, self.places, self.slots = self.places, {}, []
        if self.kind is not None:
            usual = [output for output in self.wire.outputs(result) if output[0] not in self.unusual]
            self.link.learn(self.kind, usual, self.named)
        return places

    def failed(self, error: BaseException) -> bool:
        """Notes an error; whether to send the request once more, as the caller gave it."""
        placed = self.inputs is not None or bool(self.places)
        answered = self.wire.answered(error)
        if not answered:
            self.link.quarantine(self.slots)
        repeat = False
        if answered and placed:
            text = str(error)
            if self.link.lost(text):
                repeat = True
            elif "unexpected inference output" in text and not self.named and self.kind is not None:
                # Another version of the model is served now. Nothing has run yet.
                self.link.unlearn(self.kind)
                repeat = True
            elif "shared memory size specified with the request for output" in text and self.kind is not None:
                self.link.outgrown(self.kind, self.places)
                # The model has run; of a sequence that is a step which must not be made twice.
                repeat = not self.sequence
        self.slots = []
        self.places = {}
        return repeat


class Link:
    """One server. Threads: any."""

    def __init__(self, off: str = "") -> None:
        self.off = off
        self.alias: Link | None = None
        self.connected = False
        self._lock = threading.Lock()
        self._kinds: OrderedDict[tuple[Any, ...], Kind] = OrderedDict()
        self._single: dict[tuple[str, int], Ring] = {}
        self._rings: dict[str, Ring] = {}  # by name; all that the server knows or will know
        self._leaving: list[Ring] = []
        self._busy: set[str] = set()  # rings that somebody is registering
        self._fixed: dict[tuple[str, str], frozenset[str]] = {}
        self._retry_at = 0.0

    # --- what is known ----------------------------------------------------------------------------------------------

    def real(self) -> Link:
        """The link itself, or the one to the same server by another address."""
        return self.alias or self

    @property
    def transport(self) -> Transport:
        """How tensors travel."""
        if self.off:
            return Transport(False, self.off)
        if not self.connected:
            return Transport(False, "not tried yet; the first request of a kind is sent as the original does")
        return Transport(True, "the server opened this process's memory")

    def turn_off(self, reason: str) -> None:
        """For good."""
        if not self.off:
            self.off = reason
            LOG.info("tensors travel in the requests: %s", reason)
            with self._lock:
                for ring in self._rings.values():
                    ring.segment.hide()
                self._detach()

    def kind(self, model: str, version: str, sources: Sequence[Source]) -> Kind:
        """Of a request."""
        inputs = tuple((s.name, s.datatype, s.shape) for s in sources)
        key = (model, version, inputs)
        with self._lock:
            found = self._kinds.get(key)
            if found is None:
                found = self._kinds[key] = Kind(model, inputs)
                if len(self._kinds) > KINDS:
                    self._drop_ring(self._kinds.popitem(last=False)[1])
            else:
                self._kinds.move_to_end(key)
            found.seen += 1
            return found

    def learn(self, kind: Kind, outputs: Sequence[tuple[str, str, tuple[int, ...]]], named: bool) -> None:
        """Notes the outputs of an answer; `named`: the caller named them."""
        if not named and kind.everything is None:
            kind.everything = tuple(name for name, _, _ in outputs)
        for name, datatype, shape in outputs:
            size = byte_size(datatype, shape)
            known = kind.sizes.get(name, -1)
            if known in (None, size):
                continue
            with self._lock:
                kind.sizes[name] = size if known == -1 else None
                self._drop_ring(kind)

    def outgrown(self, kind: Kind, names: Mapping[str, Lease]) -> None:
        """An output did not fit its lane: none of these has a lane from now on."""
        with self._lock:
            for name in names:
                kind.sizes[name] = None
            self._drop_ring(kind)

    def unlearn(self, kind: Kind) -> None:
        """Its outputs are others now."""
        with self._lock:
            kind.sizes.clear()
            kind.everything = None
            self._drop_ring(kind)

    def forget_model(self, model: str) -> None:
        """It was loaded or unloaded: its outputs may have other sizes now."""
        with self._lock:
            for key in [key for key in self._kinds if key[0] == model]:
                self._drop_ring(self._kinds.pop(key))
            self._fixed = {key: value for key, value in self._fixed.items() if key[0] != model}

    def lost(self, text: str) -> bool:
        """Whether an error says that the server knows a region of ours no more. Then all are made anew."""
        found = re.search(r"Unable to find shared memory region: '(umo-[^']*)'", text)
        if found is None or found.group(1) not in self._rings:
            return False
        self.forget_regions()
        return True

    def forget_regions(self) -> None:
        """The server was started again, or somebody unregistered everything."""
        with self._lock:
            self._detach()
            self.connected = False
            self._retry_at = 0.0

    def _detach(self) -> None:
        for kind in self._kinds.values():
            kind.ring = None
        self._single.clear()
        self._leaving += [ring for ring in self._rings.values() if ring not in self._leaving]
        self._rings.clear()

    def _drop_ring(self, kind: Kind) -> None:
        ring, kind.ring = kind.ring, None
        if ring is not None and not ring.closed:
            self._leaving.append(ring)

    def quarantine(self, slots: Sequence[Slot]) -> None:
        """A server may still read and write there. A ring that lost half of its slots is left."""
        for slot in set(slots):
            slot.quarantine()
        with self._lock:
            for ring in {slot.ring for slot in slots}:
                if 2 * ring.suspects < ring.slots:
                    continue
                for kind in self._kinds.values():
                    if kind.ring is ring:
                        self._drop_ring(kind)
                for key in [key for key, one in self._single.items() if one is ring]:
                    self._leaving.append(self._single.pop(key))

    # --- places -----------------------------------------------------------------------------------------------------

    def _gone(self, ring: Ring) -> None:
        """The budget let an idle ring go."""
        with self._lock:
            for kind in self._kinds.values():
                if kind.ring is ring:
                    kind.ring = None
            self._single = {key: one for key, one in self._single.items() if one is not ring}
            self._leaving.append(ring)

    def _make(self, lanes: list[tuple[str, int]], model: str) -> Ring | None:
        """Not with the lock held: other rings may have to go for it, of any link."""
        try:
            ring = budget().make(lanes, model, self._gone)
        except OSError as error:
            LOG.info("no segment for %s: %s", model or "a tensor", error)
            return None
        if ring is not None:
            self._rings[ring.name] = ring
        return ring

    def single(self, name: str, size: int) -> Slot | None:
        """A place for a tensor that no kind of request is known for."""
        ring = self._single.get((name, size))
        if ring is None or ring.closed:
            made = self._make([(name, size)], ANY)
            if made is None:
                return None
            with self._lock:
                ring = self._single.get((name, size))
                if ring is None or ring.closed:
                    ring = self._single[name, size] = made
                else:
                    self._leaving.append(made)
        return budget().take(ring, ANY)

    def knows(self, ring: Ring) -> bool:
        """Whether this is a ring for this server."""
        return self._rings.get(ring.name) is ring

    def usable(self, lease: Lease) -> bool:
        """Whether the server can be told where this lies."""
        return self.knows(lease.slot.ring)

    def _ring(self, kind: Kind) -> Ring | None:
        """The ring of a kind; made when all is known that it takes."""
        ring = kind.ring
        if ring is not None and not ring.closed:
            return ring
        if kind.seen < 2 or not kind.sizes or time.monotonic() < kind.retry_at:
            return None
        lanes = kind.lanes()
        if sum(size for _, size in lanes) < SMALL_BYTES:
            return None
        made = self._make(lanes, kind.model)
        with self._lock:
            if made is None:
                kind.retry_at = time.monotonic() + RETRY_S
            elif kind.ring is None or kind.ring.closed:
                kind.ring = made
            else:
                self._leaving.append(made)
            return kind.ring

    # --- a request --------------------------------------------------------------------------------------------------

    def prepare(
        self, wire: Wire, model: str, version: str, inputs: Sequence[Any], outputs: Sequence[Any] | None, sequence: bool
    ) -> Generator[Control, Any, Attempt]:
        """Decides how a request travels. Raises nothing of its own."""
        if self.alias is not None:
            return (yield from self.alias.prepare(wire, model, version, inputs, outputs, sequence))
        attempt = Attempt(self, wire, None, sequence, bool(outputs))
        if self._leaving:
            yield from self._tidy()
        if self.off:
            return attempt
        if outputs:
            attempt.unusual = {name for name, usual in map(wire.requested, outputs) if not usual}
        sources = [wire.source(tensor) for tensor in inputs]
        kind = attempt.kind = self.kind(model, version, sources)
        ring = self._ring(kind)
        if ring is None and not any(type(source.data) is Lease for source in sources):
            return attempt
        if not self.connected:
            yield from self._connect()
            if self.alias is not None:
                self.alias.kind(model, version, sources)
                return (yield from self.alias.prepare(wire, model, version, inputs, outputs, sequence))
            if not self.connected:
                return attempt
        self._place_inputs(attempt, ring, inputs, sources)
        if ring is not None:
            fixed = None
            if sequence:
                fixed = yield from self._fixed_outputs(model, version)
            self._place_outputs(attempt, ring, outputs, fixed)
        for one in {slot.ring for slot in attempt.slots}:
            if not one.registered and not (yield from self._register(one)):
                attempt.leave()
                break
        return attempt

    def _place_inputs(
        self, attempt: Attempt, ring: Ring | None, inputs: Sequence[Any], sources: Sequence[Source]
    ) -> None:
        """Where an input lies is said to the server; what lies elsewhere is copied into a lane, where there is one."""
        kind = attempt.kind
        assert kind is not None
        made = list(inputs)
        slot: Slot | None = None
        for source in sources:
            if type(source.data) is Lease and source.data.slot.ring is ring and self.usable(source.data):
                slot = source.data.slot
        for at, source in enumerate(sources):
            lease = source.data
            if lease is None:
                continue
            if type(lease) is not Lease or not self.usable(lease):
                if ring is None or not ring.has(kind.model, f"<{source.name}"):
                    continue
                if slot is None or not slot.claim(f"<{source.name}"):
                    slot = budget().take(ring, kind.model)
                    if slot is None:
                        continue
                    slot.claim(f"<{source.name}")
                bytes_of = lease.array() if type(lease) is Lease else np.frombuffer(lease, np.uint8)
                lease = fill(slot, f"<{source.name}", bytes_of)
            made[at] = attempt.wire.placed_input(source, lease)
            attempt.slots.append(lease.slot)
            self._hint(source, kind)
        if attempt.slots:
            attempt.inputs = made

    def _hint(self, source: Source, kind: Kind) -> None:
        key = (source.name, source.datatype, source.shape)
        known = _hints.get(key)
        if known is None or known() is not kind:
            with _lock:
                _hints[key] = weakref.ref(kind)
                if len(_hints) > 4 * KINDS:
                    _hints.popitem(last=False)

    def _place_outputs(
        self, attempt: Attempt, ring: Ring, outputs: Sequence[Any] | None, fixed: frozenset[str] | None
    ) -> None:
        kind = attempt.kind
        assert kind is not None
        if not outputs:
            if kind.everything is None:
                return
            asked = [(name, True, None) for name in kind.everything]
        else:
            asked = [(*attempt.wire.requested(output), output) for output in outputs]
        names = {
            name
            for name, may, _ in asked
            if may and ring.has(kind.model, f">{name}") and (fixed is None or name in fixed)
        }
        if not names:
            return
        slot = next((s for s in attempt.slots if s.ring is ring and s.model == kind.model and s.claim(OUTPUTS)), None)
        if slot is None:
            slot = budget().take(ring, kind.model)
            if slot is None:
                return
            slot.claim(OUTPUTS)
        attempt.slots.append(slot)
        made = []
        for name, _, given in asked:
            if name in names:
                attempt.places[name] = slot.lease(f">{name}", writable=False)
                made.append(attempt.wire.output(name, attempt.places[name]))
            else:
                made.append(given if given is not None else attempt.wire.output(name, None))
        attempt.outputs = made

    # --- what has to be asked ---------------------------------------------------------------------------------------

    def _connect(self) -> Generator[Control, Any, None]:
        """Finds out whether another link leads to the same server, and clears away what dead clients left there."""
        if time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RETRY_S
        try:
            status = yield Control("get_system_shared_memory_status")
        except Exception as error:
            self._refused(error, "the server has no shared memory for its clients")
            return
        names = region_names(status)
        with _lock:
            others = [link for link in _links.values() if link is not self and link.connected]
        for other in others:
            if any(ring.registered and name in names for name, ring in list(other._rings.items())):
                self._move_to(other)
                return
        segment.sweep()
        for name in names:
            owner = segment.Owner.of(name)
            if owner is not None and owner.is_dead():
                with contextlib.suppress(Exception):
                    yield Control("unregister_system_shared_memory", (name,))
        self.connected = True
        global _recent
        _recent = weakref.ref(self)

    def _move_to(self, other: Link) -> None:
        with self._lock:
            for name, ring in self._rings.items():
                other._rings[name] = ring
            self._rings.clear()
            self.alias = other

    def _register(self, ring: Ring) -> Generator[Control, Any, bool]:
        """Tells the server of a ring; whether it knows it now."""
        with self._lock:
            if ring.name in self._busy:
                return False
            self._busy.add(ring.name)
        try:
            yield Control("register_system_shared_memory", (ring.name, ring.segment.key, ring.size))
            ring.registered = True
            return True
        except BaseException as error:
            # Unless it said no the server may know the ring, and cannot be told again: its key goes now.
            ring.registered = not isinstance(error, Refused)
            with self._lock:
                for kind in self._kinds.values():
                    if kind.ring is ring:
                        kind.ring = None
                        kind.retry_at = time.monotonic() + RETRY_S
                self._single = {key: one for key, one in self._single.items() if one is not ring}
                self._rings.pop(ring.name, None)
                self._leaving.append(ring)
            if not isinstance(error, Exception):
                raise
            self._refused(error, "the server did not open this process's memory")
            return False
        finally:
            ring.segment.hide()
            with self._lock:
                self._busy.discard(ring.name)

    def _refused(self, error: Exception, what: str) -> None:
        """A server's own no is final. A connection that broke is not."""
        if isinstance(error, Refused):
            self.turn_off(f"{what}: {error}")

    def _fixed_outputs(self, model: str, version: str) -> Generator[Control, Any, frozenset[str]]:
        """The outputs whose size follows from the configuration: a sequence's step cannot be repeated."""
        known = self._fixed.get((model, version))
        if known is None:
            try:
                config = yield Control("get_model_config", (model, version))
            except Exception:
                return frozenset()
            config = config.get("config", config)
            known = frozenset(
                output["name"]
                for output in config.get("output", ())
                if all(int(dim) >= 0 for dim in output.get("dims", ("-1",)))
            )
            self._fixed[model, version] = known
        return known

    def _tidy(self) -> Generator[Control, Any, None]:
        """Unregisters rings that nobody uses any more."""
        with self._lock:
            leaving, self._leaving = self._leaving, []
        for at, ring in enumerate(leaving):
            if not ring.closed and not ring.close_if_idle():
                self._leaving.append(ring)
                continue
            if ring.registered:
                if time.monotonic() < ring.retry_at:
                    self._leaving.append(ring)
                    continue
                try:
                    yield Control("unregister_system_shared_memory", (ring.name,))
                except BaseException as error:
                    # Still in use there: what runs will end.
                    ring.retry_at = time.monotonic() + RETRY_S
                    self._leaving.append(ring)
                    if not isinstance(error, Exception):
                        self._leaving += leaving[at + 1 :]
                        raise
                    continue
            self._rings.pop(ring.name, None)
            ring.segment.hide()
            budget().release(ring)

    def shut(self) -> Generator[Control, Any, None]:
        """The last client goes: unregisters every region and gives the memory back. What cannot go now, because an
        array lies in it or a request still runs, goes when there is a client again, or another ring needs its bytes."""
        with self._lock:
            rings = [ring for ring in {*self._rings.values(), *self._leaving} if ring.registered]
            for ring in self._rings.values():
                ring.segment.hide()
            self._detach()
            self.connected = False
            self._retry_at = 0.0
        for ring in rings:
            for pause_s in (0.002, 0.01, 0.05, None):
                try:
                    yield Control("unregister_system_shared_memory", (ring.name,))
                    ring.registered = False
                    break
                except Refused:
                    # An answer may be here a moment before the server has let go of the region.
                    if pause_s is not None:
                        yield Control(PAUSE, (pause_s,))
                except Exception:
                    return
        yield from self._tidy()

    # --- fork -------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Parent and child go on in memory of their own: what is held now is written by neither any more."""
        with self._lock:
            for ring in self._rings.values():
                ring.shared = True
            for kind in self._kinds.values():
                self._drop_ring(kind)
            self._leaving += self._single.values()
            self._single.clear()

    def in_child(self) -> None:
        """The regions are the parent's."""
        self._lock = threading.Lock()
        self._rings.clear()
        self._leaving.clear()
        self._busy.clear()
        self.alias = None
        self.connected = False
        self._retry_at = 0.0


def region_names(status: Any) -> set[str]:
    """Of an answer to get_system_shared_memory_status(): a list of dicts (HTTP) or a message with a map (gRPC)."""
    if hasattr(status, "regions"):
        return set(status.regions)
    if isinstance(status, Mapping):
        return set(status.get("regions", {}))
    return {row["name"] for row in status}


def fill(slot: Slot, tensor: str, data: np.ndarray) -> Lease:
    """Copies a tensor into its lane, which the caller has claimed."""
    lease = slot.lease(tensor, data.nbytes)
    np.copyto(lease.array(data.dtype, data.shape), data)
    return lease


def hinted(
    name: str, datatype: str, shape: tuple[int, ...], link: Link | None = None, model: str | None = None
) -> Slot | None:
    """The slot in which the next input of a request lies best, if one like it was sent before; its lane is claimed."""
    reference = _hints.get((name, datatype, shape))
    kind = reference() if reference is not None else None
    if kind is None or kind.ring is None or kind.ring.closed or not kind.ring.has(kind.model, f"<{name}"):
        return None
    ring = kind.ring
    if (model is not None and kind.model != model) or (link is not None and link.knows(ring) is False):
        return None
    opened = _open.get()
    slot = opened[1]() if opened is not None and opened[0] is kind else None
    if slot is None or slot.lost or slot.ring is not ring or slot.claimed(OUTPUTS) or not slot.claim(f"<{name}"):
        slot = budget().take(ring, kind.model)
        if slot is None:
            return None
        slot.claim(f"<{name}")
        _open.set((kind, weakref.ref(slot)))
    return slot


def place(name: str, datatype: str, shape: tuple[int, ...], data: np.ndarray) -> Lease | None:
    """Copies an input to where a request can leave it; None where it has to travel."""
    slot = hinted(name, datatype, shape)
    if slot is not None:
        return fill(slot, f"<{name}", data)
    link = _recent() if _recent is not None else None
    if data.nbytes < LOOSE_BYTES or link is None or not link.connected:
        return None
    # Sizes that differ share a lane when they differ by less than an eighth: images hardly ever come twice.
    size = data.nbytes
    step = max(1 << (size.bit_length() - 4), 4096)
    size = -(-size // step) * step
    slot = link.single(f"<{name}", size)
    return fill(slot, f"<{name}", data) if slot is not None else None


def _each(what: Callable[[Link], None]) -> None:
    for link in list(_links.values()):
        what(link)


def _in_child() -> None:
    global _lock, _budget, _recent
    _lock = threading.Lock()
    _budget = None
    _recent = None
    _hints.clear()
    segment.disown_all()
    _each(Link.in_child)


os.register_at_fork(before=lambda: _each(Link.before_fork), after_in_child=_in_child)
