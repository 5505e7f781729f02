"""Writes the C++ file that turns kernels in Metal's language into functions of the fake Metal.

wrap.py OUT.cc TEXT...      a TEXT is one program: a file, or several joined by "+", which stand one behind the other

The C++ compiler reads the kernels' own text; this file adds what the language puts in attributes, which a C++ compiler
drops: a function a kernel that calls it once for each thread of the grid, and the list of its bindings. Threads run
one after the other, so a kernel with a barrier is refused, as is every attribute that is not handled here.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

KERNEL = re.compile(r"\bkernel\s+void\s+(\w+)\s*\(")
PARAMETER = re.compile(
    r"(?P<declaration>.*?)(?P<name>\w+)\s*\[\[\s*(?P<attribute>\w+)\s*(\(\s*(?P<index>\d+)\s*\))?\s*\]\]"
)
BARRIER = re.compile(r"\b\w*group_barrier\b")
# By the number of dimensions that a builtin's type has.
VALUES = {
    "thread_position_in_grid": ("x", "x, y", "x, y, z"),
    "threads_per_grid": ("global[0]", "global[0], global[1]", "global[0], global[1], global[2]"),
}
BUILTIN_TYPES = ("uint", "uint2", "uint3")


class Refused(Exception):
    """The text cannot be run here, and why."""


@dataclass
class Parameter:
    type: str  # without address space, const and * or &
    name: str
    attribute: str
    index: int
    space: str
    reference: bool
    writes: bool


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)


def split(text: str) -> list[str]:
    """The parameters between the parentheses, cut at commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "([<") - (char in ")]>")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def parameters(kernel: str, text: str) -> list[Parameter]:
    found = []
    for part in split(text):
        match = PARAMETER.fullmatch(" ".join(part.split()))
        if match is None:
            raise Refused(f"{kernel}: parameter without an attribute: {part.strip()}")
        words = re.findall(r"\w+", match["declaration"])
        spaces = [word for word in words if word in ("device", "constant", "threadgroup")]
        types = [word for word in words if word not in (*spaces, "const")]
        if len(types) != 1 or len(spaces) > 1:
            raise Refused(f"{kernel}: parameter {match['name']}: one type and one address space are expected")
        space = spaces[0] if spaces else ""
        found.append(
            Parameter(
                type=types[0],
                name=match["name"],
                attribute=match["attribute"],
                index=int(match["index"] or 0),
                space=space,
                reference="&" in match["declaration"],
                writes=space == "device" and "const" not in words,
            )
        )
    return found


def argument(kernel: str, parameter: Parameter, at: int) -> str:
    if parameter.attribute in ("buffer", "threadgroup"):
        const = "" if parameter.writes or parameter.attribute == "threadgroup" else "const "
        pointer = f"static_cast<{const}{parameter.type} *>(args[{at}])"
        return f"*{pointer}" if parameter.reference else pointer
    if parameter.attribute not in VALUES or parameter.type not in BUILTIN_TYPES:
        raise Refused(
            f"{kernel}: parameter {parameter.name}: {parameter.type} [[{parameter.attribute}]] is not handled"
        )
    values = VALUES[parameter.attribute][BUILTIN_TYPES.index(parameter.type)]
    cast = ", ".join(f"static_cast<uint>({value.strip()})" for value in values.split(","))
    return cast if parameter.type == "uint" else f"{parameter.type}({cast})"


def wrapper(kernel: str, text: str) -> str:
    listed = parameters(kernel, text)
    bound = [p for p in listed if p.attribute in ("buffer", "threadgroup")]
    call = ", ".join(argument(kernel, p, bound.index(p) if p in bound else 0) for p in listed)
    bindings = "".join(
        f'    {{"{p.name}", FAKE_METAL_{p.attribute.upper()}, {p.index}, {str(p.writes).lower()}, false,'
        f" sizeof({p.type}), alignof({p.type})}},\n"
        for p in bound
    )
    return f"""
static void run_{kernel}(void *const *args, const size_t global[3])
{{
    for (size_t z = 0; z < global[2]; z++) {{
        for (size_t y = 0; y < global[1]; y++) {{
            for (size_t x = 0; x < global[0]; x++) {{
                {kernel}({call});
            }}
        }}
    }}
}}
static const fake_metal_binding bindings_{kernel}[] = {{
{bindings}}};
"""


def program(number: int, paths: list[Path]) -> tuple[str, list[str]]:
    text = without_comments("\n".join(path.read_text(encoding="utf-8") for path in paths))
    if BARRIER.search(text):
        raise Refused(f"{paths[-1].name}: a barrier, but threads run one after the other here")
    wrappers, rows = [], []
    for match in KERNEL.finditer(text):
        name = match[1]
        depth, end = 1, match.end()
        while depth > 0:
            depth += (text[end] == "(") - (text[end] == ")")
            end += 1
        wrappers.append(wrapper(name, text[match.end() : end - 1]))
        where = f"program_{number}"
        rows.append(
            f'    {{"{name}", {where}::run_{name}, {where}::bindings_{name},\n'
            f"     sizeof {where}::bindings_{name} / sizeof {where}::bindings_{name}[0], 0, 0}},\n"
        )
    if not rows:
        raise Refused(f"{paths[-1].name}: no kernel in it")
    includes = "".join(f'#include "{path.resolve()}"\n' for path in paths)
    return f"namespace program_{number}\n{{\n{includes}{''.join(wrappers)}}}\n\n", rows


def main(out: str, *programs: str) -> int:
    text = '/* Made by wrap.py. */\n#include "fake_metal.h"\n\n#include <metal_stdlib>\n\n'
    rows: list[str] = []
    try:
        for number, names in enumerate(programs):
            body, more = program(number, [Path(name) for name in names.split("+")])
            text += body
            rows += more
    except Refused as refused:
        print(f"wrap.py: {refused}", file=sys.stderr)
        return 1
    names = [row.split('"')[1] for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        print(f"wrap.py: two kernels of one name: {', '.join(sorted(twice))}", file=sys.stderr)
        return 1
    text += (
        'extern "C" FAKE_METAL_API const fake_metal_kernel fake_metal_kernels[];\n'
        "const fake_metal_kernel fake_metal_kernels[] = {\n"
        f"{''.join(rows)}    {{nullptr, nullptr, nullptr, 0, 0, 0}},\n}};\n"
    )
    Path(out).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
