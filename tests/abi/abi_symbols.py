#!/usr/bin/env python3
"""Compares the names in triton_abi.h with what the real server's library exports.

usage: abi_symbols.py HEADER BACKENDS

Red when the header declares a call that the library lacks, when the library exports a TRITONSERVER_ or
TRITONBACKEND_ call that the header neither declares nor leaves out by name, and when a backend in the
directory BACKENDS needs a TRITON symbol that the server lacks, or exports anything but entry points.
"""

import glob
import os
import re
import subprocess
import sys

# What a backend gives to the server, not the other way round.
ENTRY_POINTS = {
    "TRITONBACKEND_Initialize",
    "TRITONBACKEND_Finalize",
    "TRITONBACKEND_ModelInitialize",
    "TRITONBACKEND_ModelFinalize",
    "TRITONBACKEND_ModelInstanceInitialize",
    "TRITONBACKEND_ModelInstanceFinalize",
    "TRITONBACKEND_ModelInstanceExecute",
    "TRITONBACKEND_GetBackendAttribute",
}
LEFT_OUT = re.compile(r"TRITONSERVER_InferenceTrace\w+|TRITONCACHE_\w+|TRITONREPOAGENT_\w+")


def library():
    named = os.environ.get("UMO_TRITON_LIBRARY")
    if named:
        return named
    root = os.environ.get("UMO_ROOT", ".")
    pattern = ".venv/lib/python3*/site-packages/nvidia_pytriton.libs/libtritonserver*.so*"
    found = sorted(glob.glob(f"{root}/{pattern}"))
    return found[0] if found else None


def symbols(path, which):
    listing = subprocess.run(["nm", "-D", which, path], stdout=subprocess.PIPE, text=True, check=True).stdout
    # A symbol of a versioned library reads name@@VERSION.
    return {line.split()[-1].split("@")[0] for line in listing.splitlines()}


def declared(header):
    with open(header, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", " ", file.read(), flags=re.DOTALL)
    # A callback's type ends in `_t)(` and does not match.
    return set(re.findall(r"\b(TRITON(?:SERVER|BACKEND)_\w+)\(", text))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    backends = sorted(glob.glob(f"{sys.argv[2]}/*/libtriton_*.so"))
    path = library()
    if path is None:
        print("skipped: no libtritonserver; run the set-up or set UMO_TRITON_LIBRARY")
        sys.exit(77)
    exported = {name for name in symbols(path, "--defined-only") if name.startswith("TRITON")}
    ours = declared(sys.argv[1])
    problems = []
    for name in sorted(ours - exported - ENTRY_POINTS):
        problems.append(f"declared, but not in the library: {name}")
    for name in sorted(ENTRY_POINTS - ours):
        problems.append(f"entry point not declared: {name}")
    for name in sorted(exported - ours):
        if not LEFT_OUT.fullmatch(name):
            problems.append(f"in the library, but not declared: {name}")
    if not backends:
        problems.append(f"no backend in {sys.argv[2]}")
    for backend in backends:
        for name in sorted(symbols(backend, "--undefined-only")):
            if name.startswith("TRITON") and name not in exported:
                problems.append(f"{os.path.basename(backend)} needs {name}, which nobody has")
        for name in sorted(symbols(backend, "--defined-only") - ENTRY_POINTS):
            problems.append(f"{os.path.basename(backend)} exports {name}")
    print("\n".join(problems) or f"{len(ours)} declarations agree with {len(exported)} symbols")
    print("backends:", ", ".join(os.path.basename(backend) for backend in backends))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
