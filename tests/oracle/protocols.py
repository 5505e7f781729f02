"""What Apple's compiler says: the protocols that a Mach-O library carries, read out of its Objective-C metadata.

PyObjC's extension modules name Metal's protocols, so the compiler put each into them in full, with every method's type
encoding, once for x86-64 and once for arm64. No word of this is PyObjC's: the methods are those of the SDK's headers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

CPUS = {0x01000007: "x86_64", 0x0100000C: "arm64"}
FAT = 0xCAFEBABE
SEGMENT_64 = 0x19
VERSION_MIN, BUILD_VERSION = 0x24, 0x32
RELATIVE = 0x80000000  # a list of methods whose entries are 32-bit distances
# The places of a protocol's lists of methods, and whether they are of the class.
METHOD_LISTS = ((24, False), (32, True), (40, False), (48, True))


@dataclass
class Protocols:
    sdk: str = ""
    # (protocol, whether of the class, selector): the encoding, with the offsets of the frame
    methods: dict[tuple[str, bool, str], str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


class Image:
    """One architecture's part of a library, read by addresses."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.segments: list[tuple[int, int, int]] = []
        self.sections: dict[str, tuple[int, int]] = {}
        self.sdk = ""
        (commands,) = struct.unpack_from("<I", data, 16)
        at = 32
        for _ in range(commands):
            kind, size = struct.unpack_from("<II", data, at)
            if kind == SEGMENT_64:
                self.add_segment(at)
            elif kind in (VERSION_MIN, BUILD_VERSION):
                (sdk,) = struct.unpack_from("<I", data, at + (12 if kind == VERSION_MIN else 16))
                self.sdk = f"{sdk >> 16}.{sdk >> 8 & 255}"
            at += size

    def add_segment(self, at: int) -> None:
        address, _, offset, size = struct.unpack_from("<QQQQ", self.data, at + 24)
        self.segments.append((address, offset, size))
        (sections,) = struct.unpack_from("<I", self.data, at + 64)
        for i in range(sections):
            name, _, start, length = struct.unpack_from("<16s16sQQ", self.data, at + 72 + 80 * i)
            self.sections[name.rstrip(b"\0").decode()] = (start, length)

    def offset(self, address: int) -> int:
        for start, offset, size in self.segments:
            if start <= address < start + size:
                return address - start + offset
        raise ValueError(f"the library has nothing at {address:#x}")

    def pointer(self, address: int) -> int:
        return int(struct.unpack_from("<Q", self.data, self.offset(address))[0])

    def text(self, address: int) -> str:
        start = self.offset(address)
        return self.data[start : self.data.index(b"\0", start)].decode()

    def method_list(self, address: int) -> list[tuple[str, str]]:
        flags, count = struct.unpack_from("<II", self.data, self.offset(address))
        methods = []
        for i in range(count):
            if flags & RELATIVE:
                at = address + 8 + 12 * i
                name, types = struct.unpack_from("<ii", self.data, self.offset(at))
                methods.append((self.text(self.pointer(at + name)), self.text(at + 4 + types)))
            else:
                at = address + 8 + (flags & 0xFFFC) * i
                methods.append((self.text(self.pointer(at)), self.text(self.pointer(at + 8))))
        return methods

    def protocols(self) -> Protocols:
        said = Protocols(self.sdk)
        start, length = self.sections["__objc_protolist"]
        for at in range(start, start + length, 8):
            protocol = self.pointer(at)
            name = self.text(self.pointer(protocol + 8))
            said.names.add(name)
            for place, on_class in METHOD_LISTS:
                if methods := self.pointer(protocol + place):
                    for selector, encoding in self.method_list(methods):
                        said.methods[name, on_class, selector] = encoding
        return said


def read(library: Path) -> dict[str, Protocols]:
    """The protocols of each architecture of a universal library."""
    data = library.read_bytes()
    magic, parts = struct.unpack_from(">II", data)
    if magic != FAT:
        raise ValueError(f"{library.name} is no universal library")
    said = {}
    for i in range(parts):
        cpu, _, offset, size, _ = struct.unpack_from(">IIIII", data, 8 + 20 * i)
        if cpu in CPUS:
            said[CPUS[cpu]] = Image(data[offset : offset + size]).protocols()
    return said
