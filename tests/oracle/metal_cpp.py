"""What metal-cpp says: every method of its classes with the selector that it sends and its types, its constants,
structs and classes. A program that is generated from its definitions is compiled against its headers and run; a
definition that the scan misreads does not compile, or is missing from what the program tells."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from oracle.build import CLANG, CLANGXX, METAL_CPP_OPTIONS, run, told
from oracle.fetch import CACHE, HERE

SOURCES = ("encode.hpp", "metal_cpp.hpp", "receive.c", "metal_cpp.py")
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
DEFINITION = re.compile(
    r"^(?P<template>template\s*<[^{};]*>\s*)?_(?:MTL|NS)_INLINE\s+(?P<result>[^(){};]+?[\s*&])"
    r"(?P<space>NS|MTL)::(?P<type>\w+)::(?P<method>\w+)\s*"
    r"\((?P<parameters>[^{};]*)\)\s*(?:const\s*)?\{(?P<body>.*?)^\}",
    re.DOTALL | re.MULTILINE,
)
ENUM = re.compile(r"_(?:MTL|NS)_(?:ENUM|OPTIONS)\s*\(([^)]*)\)\s*\{(.*?)\}", re.DOTALL)
NAMESPACE = re.compile(r"^namespace\s+(\w+)", re.MULTILINE)


@dataclass
class MetalCpp:
    # (owner, whether of the class, selector): the types of each method that sends it, in encodings
    methods: dict[tuple[str, bool, str], list[tuple[str, ...]]] = field(default_factory=dict)
    owners: set[str] = field(default_factory=set)
    constants: dict[str, int] = field(default_factory=dict)
    structs: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    selectors: set[str] = field(default_factory=set)
    functions: dict[str, str] = field(default_factory=dict)  # C functions: result and parameters
    classes: set[str] = field(default_factory=set)  # that it looks up by name


def generate(headers: Path) -> str:
    """The program: a call of tell_method() for each method, a line for each constant."""
    tells: list[str] = []
    names: list[str] = []
    for path in sorted([*headers.glob("Foundation/*.hpp"), *headers.glob("Metal/*.hpp")]):
        text = COMMENT.sub("", path.read_text())
        for found in DEFINITION.finditer(text):
            if found["template"] or "sendMessage" not in found["body"] or "&" in found["parameters"]:
                continue  # a reference is metal-cpp's convenience for C++: it is no message of Metal's
            if found["parameters"].startswith("const void* pObj"):
                continue  # a protected helper that takes its object
            space, kind = found["space"], found["type"]
            call = f"{found['result'].strip()}({' '.join(found['parameters'].split())})"
            tells.append(
                f"namespace {space} {{ static void tell_{len(tells)}() {{ oracle::Method<{kind}, {call}>::tell_method("
                f'"{space}{kind}", &{kind}::{found["method"]}); }} }}'
            )
            names.append(f"{space}::tell_{len(tells) - 1}")
        for found in ENUM.finditer(text):
            space = NAMESPACE.findall(text, 0, found.start())[-1]
            if space not in ("NS", "MTL"):
                continue
            for word in found[2].split(","):
                if name := word.split("=")[0].strip():
                    tells.append(f"static void tell_{len(tells)}() {{ oracle::tell(")
                    tells[-1] += f'"constant", "{space}{name}", std::to_string((long long){space}::{name})); }}'
                    names.append(f"tell_{len(tells) - 1}")
    calls = "\n".join(f"    {name}();" for name in names)
    body = "\n".join(tells)
    return (
        f'#include "metal_cpp.hpp"\n{body}\nint main()\n{{\n{calls}\n'
        "    oracle::tell_others();\n    oracle::tell_structs();\n}\n"
    )


def ask(headers: Path) -> str:
    """What the program tells; kept beside the headers until they or the program change."""
    digest = hashlib.sha256(str(headers).encode())
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    for path in sorted((HERE / "stubs").rglob("*.h")):
        digest.update(path.read_bytes())
    folder = CACHE / f"told-{digest.hexdigest()[:16]}"
    kept = folder / "told.txt"
    if kept.is_file():
        return kept.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.cc").write_text(generate(headers))
    run([CLANG, "-std=c11", "-O0", "-c", HERE / "receive.c", "-o", folder / "receive.o"])
    command = [CLANGXX, "-std=c++17", "-fblocks", "-O0", "-w", f"-I{HERE}", f"-I{HERE / 'stubs'}", f"-I{headers}"]
    command += METAL_CPP_OPTIONS
    run([*command, folder / "program.cc", folder / "receive.o", "-ldl", "-o", folder / "program"])
    text = run([folder / "program"])
    partial = folder / "told.part"
    partial.write_text(text)
    partial.rename(kept)
    return text


def read(headers: Path) -> MetalCpp:
    said = MetalCpp()
    for kind, *words in told(ask(headers)):
        if kind == "method":
            of_class, owner, selector, types = words
            call = tuple(types.split(" "))
            call = (call[0], "@", ":", *call[1:])
            said.methods.setdefault((owner, of_class == "+", selector), []).append(call)
            said.owners.add(owner)
        elif kind == "constant":
            said.constants[words[0]] = int(words[1])
        elif kind == "selector":
            said.selectors.add(words[0])
        elif kind == "function":
            said.functions[words[0]] = words[1]
        elif kind == "class":
            said.classes.add(words[0])
        elif kind != "protocol":
            said.structs.setdefault(words[0], []).append((kind, *words[1:]))
    return said


def describe(said: MetalCpp) -> str:
    """Its size in words, for the report."""
    return json.dumps(
        {"methods": sum(map(len, said.methods.values())), "classes": len(said.owners), "constants": len(said.constants)}
    )
