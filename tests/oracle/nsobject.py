"""What Apple's <objc/NSObject.h> says, by the compiler: zig, which builds the library for macOS, ships the header."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from oracle.build import run
from oracle.fetch import CACHE

TARGET = "aarch64-macos.13.0"
# (whether of the class, selector) without arguments: the expression whose type is the result's
ASKED = {
    (True, "new"): "[NSObject new]",
    (False, "retain"): "[(NSObject *)0 retain]",
    (False, "release"): "[(NSObject *)0 release]",
}


def read(folder: Path) -> dict[tuple[bool, str], str]:
    """The encodings of the results; a method that the header does not declare is an error of the compiler."""
    source = folder / "nsobject.m"
    lines = [f"const char told_{i}[] = @encode(__typeof__({text}));" for i, text in enumerate(ASKED.values())]
    source.write_text("\n".join(["#import <objc/NSObject.h>", *lines, ""]))
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        os.environ.setdefault(name, str(CACHE / "zig"))
    command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGET, "-x", "objective-c", "-g0"]
    command += ["-Werror=objc-method-access", "-Werror=undeclared-selector"]
    run([*command, "-S", "-emit-llvm", "-o", folder / "nsobject.ll", source])
    said = re.findall(r'@told_(\d+) = .*c"(.*?)\\00"', (folder / "nsobject.ll").read_text())
    methods = list(ASKED)
    return {methods[int(i)]: encoding for i, encoding in said}
