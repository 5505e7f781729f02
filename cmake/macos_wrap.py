"""Links for macOS as GNU ld does with --wrap, which no linker for Mach-O has.

    python3 cmake/macos_wrap.py COMPILER ARGUMENT...

For each -Wl,--wrap=NAME, what an object of ours needs as NAME becomes __wrap_NAME, and what it needs as __real_NAME
becomes NAME. "Ours" are the objects and libraries given by a relative path, as CMake gives those of its own build.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

OPTION = "-Wl,--wrap="
SYMBOL_TABLES = ("/", "/SYM64/", "__.SYMDEF", "__.SYMDEF SORTED", "__.SYMDEF_64", "__.SYMDEF_64 SORTED")


def members(archive: Path, folder: Path) -> list[Path]:
    """Takes an archive apart by hand: ar loses one of two members with the same name."""
    data = archive.read_bytes()
    found = []
    at = 8
    while at < len(data):
        name = data[at : at + 16].decode().rstrip()
        size = int(data[at + 48 : at + 58])
        body = data[at + 60 : at + 60 + size]
        if name.startswith("#1/"):
            length = int(name[3:])
            name, body = body[:length].rstrip(b"\0").decode(), body[length:]
        if name.removesuffix("/").endswith(".o"):
            found.append(folder / f"{len(found)}-{name.removesuffix('/')}")
            found[-1].write_bytes(body)
        elif name not in SYMBOL_TABLES:
            # As "/123", GNU's way of a long name: nothing may be missing from the program unsaid.
            raise SystemExit(f"{archive}: no way to read the member {name!r}")
        at += 60 + size + size % 2
    return found


def defined(path: Path) -> set[str]:
    shown = subprocess.run(
        ["llvm-nm-14", "-gU", "--just-symbol-name", path], check=True, capture_output=True, text=True
    )
    return set(shown.stdout.split())


def redirect(path: Path, made: Path, names: list[str]) -> Path:
    """What an object defines itself is not what it needs of others."""
    own = defined(path)
    options = []
    for name in names:
        if f"_{name}" not in own:
            options.append(f"--redefine-sym=_{name}=___wrap_{name}")
        options.append(f"--redefine-sym=___real_{name}=_{name}")
    subprocess.run(["llvm-objcopy-14", *options, path, made], check=True)
    return made


def main() -> int:
    compiler, *arguments = sys.argv[1:]
    names = [name for word in arguments if word.startswith(OPTION) for name in word[len(OPTION) :].split(",--wrap=")]
    with tempfile.TemporaryDirectory(prefix="umo-wrap-") as scratch:
        command = [compiler]
        for number, argument in enumerate(arguments):
            path = Path(argument)
            if argument.startswith(OPTION):
                continue
            if path.is_absolute() or path.suffix not in (".o", ".a") or not path.is_file():
                command.append(argument)
                continue
            folder = Path(scratch) / str(number)
            folder.mkdir()
            if path.suffix == ".o":
                command.append(str(redirect(path, folder / path.name, names)))
                continue
            objects = [redirect(member, member, names) for member in members(path, folder)]
            made = folder / path.name
            subprocess.run(["llvm-ar-14", "rcs", made, *objects], check=True)
            command.append(str(made))
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
