"""What CMake calls as its strip for a wheel: the symbols go into a file of their own, found by the build's id.

    split_symbols.py FOLDER [OPTION...] FILE

The linker's id covers the symbols, and the compiler's own objects among them name the folder that it lies in. So the
id is made anew of what is left: the same sources give the same file on every machine.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path


def main() -> None:
    folder, file = Path(sys.argv[1]), Path(sys.argv[-1])
    notes = subprocess.run(["llvm-readelf-14", "-n", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Build ID: ([0-9a-f]{40})", notes)
    if found is None:
        sys.exit(f"{file}: has no build id")
    old = bytes.fromhex(found.group(1))
    symbols = file.with_name(file.name + ".debug")
    keep = ["llvm-objcopy-14", "--only-keep-debug", "--compress-debug-sections=zlib", file, symbols]
    subprocess.run(keep, check=True)
    subprocess.run(["llvm-strip-14", "--strip-unneeded", file], check=True)
    content = file.read_bytes()
    if content.count(old) != 1:
        sys.exit(f"{file}: its build id is in it {content.count(old)} times")
    new = hashlib.sha1(content.replace(old, bytes(len(old)))).digest()
    file.write_bytes(content.replace(old, new))
    target = folder / ".build-id" / new.hex()[:2] / f"{new.hex()[2:]}.debug"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(symbols.read_bytes().replace(old, new))
    symbols.unlink()


if __name__ == "__main__":
    main()
