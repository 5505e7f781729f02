"""Perfetto's own form: a stream of TracePacket messages, made with the messages of the perfetto package."""

from __future__ import annotations

from typing import Any, BinaryIO

from .model import Profile, ProfileError
from .timeline import Counter, Track, timeline
from .triton import Traced

_SEQUENCE = 1
_MOST = (1 << 63) - 1  # what a counter of theirs holds


def _messages() -> Any:
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError:
        raise ProfileError("a Perfetto trace needs the package perfetto: pip install perfetto") from None
    return perfetto_trace_pb2


class _Writer:
    def __init__(self, file: BinaryIO, profile: Profile) -> None:
        self.pb = _messages()
        self.file = file
        self.zero = int(profile.facts.get("clock_ns", 0))
        self.tracks: dict[object, int] = {}
        self.first = True
        self.words = str(profile.facts.get("command") or "umo")

    def packet(self, time_ns: int | None = None) -> Any:
        packet = self.pb.TracePacket()
        packet.trusted_packet_sequence_id = _SEQUENCE
        if self.first:
            packet.sequence_flags = self.pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            self.first = False
        if time_ns is not None:
            packet.timestamp = min(max(self.zero + time_ns, 0), (1 << 64) - 1)
        return packet

    def put(self, packet: Any) -> None:
        trace = self.pb.Trace()
        trace.packet.append(packet)
        self.file.write(trace.SerializeToString())

    def group(self, name: str) -> int:
        if name not in self.tracks:
            self.tracks[name] = len(self.tracks) + 1
            packet = self.packet()
            packet.track_descriptor.uuid = self.tracks[name]
            packet.track_descriptor.name = f"{name}: {self.words}"
            self.put(packet)
        return self.tracks[name]

    def track(self, track: Track, counter: bool = False) -> int:
        if track not in self.tracks:
            parent = self.group(track.group)
            self.tracks[track] = len(self.tracks) + 1
            packet = self.packet()
            descriptor = packet.track_descriptor
            descriptor.uuid, descriptor.parent_uuid, descriptor.name = self.tracks[track], parent, track.name
            if counter:
                descriptor.counter.unit = self.pb.CounterDescriptor.UNIT_SIZE_BYTES
            self.put(packet)
        return self.tracks[track]

    def annotate(self, event: Any, args: dict[str, Any]) -> None:
        for name, value in args.items():
            note = event.debug_annotations.add()
            note.name = name
            if isinstance(value, int) and 0 <= value < 1 << 64:
                note.uint_value = value
            else:
                note.string_value = str(value)


def write_perfetto(file: BinaryIO, profile: Profile, traced: dict[int, Traced] | None = None) -> None:
    writer = _Writer(file, profile)
    kinds = writer.pb.TrackEvent
    writer.group("threads")  # so that a recording of nothing is a trace too
    for item in timeline(profile, traced):
        if isinstance(item, Counter):
            uuid = writer.track(item.track, counter=True)
            packet = writer.packet(item.time_ns)
            packet.track_event.type = kinds.TYPE_COUNTER
            packet.track_event.track_uuid, packet.track_event.counter_value = uuid, min(item.value, _MOST)
            writer.put(packet)
            continue
        uuid = writer.track(item.track)
        packet = writer.packet(item.start_ns)
        event = packet.track_event
        event.type = kinds.TYPE_INSTANT if item.duration_ns is None else kinds.TYPE_SLICE_BEGIN
        event.track_uuid, event.name = uuid, item.name
        event.categories.append(item.track.group)
        writer.annotate(event, item.args)
        if item.arrow_out is not None:
            event.flow_ids.append(item.arrow_out)
        if item.arrow_in is not None:
            event.terminating_flow_ids.append(item.arrow_in)
        writer.put(packet)
        if item.duration_ns is not None:
            packet = writer.packet(item.start_ns + item.duration_ns)
            packet.track_event.type, packet.track_event.track_uuid = kinds.TYPE_SLICE_END, uuid
            writer.put(packet)
