#!/usr/bin/env python3
"""The instruction witness sees what it must: no slope where nothing is copied, the slope of two
copies where two are made, and every kind of cost where it lies.

usage: instructions_test.py INPROC_INFER BACKENDS
"""

import glob
import os
import sys
import tempfile

from instructions import count

CONFIG = """backend: "%s"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
SIZES_MB = (1, 4, 16)
REQUESTS = 20


def library_exists():
    root = os.environ.get("UMO_ROOT", "")
    pattern = ".venv/lib/python3*/site-packages/nvidia_pytriton.libs/libtritonserver*.so*"
    return bool(os.environ.get("UMO_TRITON_LIBRARY")) or bool(glob.glob(f"{root}/{pattern}"))


def measure(tool, backends, repository, backend):
    per_request = {}
    for megabytes in SIZES_MB:
        size = megabytes << 20
        result = count(
            [tool, "--repo", repository, "--backends", backends, "--model", backend, "--shm"]
            + ["--input", f"IN:FP32:1,{size // 4}", "--output", f"OUT:{size}"]
            + ["--requests", str(REQUESTS), "--warmup", "5", "--log", "-1"]
        )
        per_request[size] = result["instructions"]
    return per_request


def main():
    tool, backends = sys.argv[1:]
    if not library_exists():
        print("skipped: no libtritonserver; run the set-up or set UMO_TRITON_LIBRARY")
        sys.exit(77)
    slopes = {}
    with tempfile.TemporaryDirectory() as repository:
        for backend in ("null", "copying"):
            os.makedirs(f"{repository}/{backend}/1")
            with open(f"{repository}/{backend}/config.pbtxt", "w", encoding="utf-8") as config:
                config.write(CONFIG % backend)
            counts = measure(tool, backends, repository, backend)
            for size, instructions in counts.items():
                print(backend, size, instructions)
                assert instructions["objects"][f"libtriton_{backend}.so"] < 2000
            small, middle, large = (counts[mb << 20]["per_request"] for mb in SIZES_MB)
            slopes[backend] = (
                (middle - small) / ((SIZES_MB[1] - SIZES_MB[0]) << 20),
                (large - middle) / ((SIZES_MB[2] - SIZES_MB[1]) << 20),
            )
            print(backend, "instructions a byte:", slopes[backend])
    # 2,000 instructions are what the threads' waiting varies by from run to run.
    for slope in slopes["null"]:
        assert abs(slope) < 2000 / (3 << 20)
    # Two copies by vector registers of 16 to 64 bytes, and the same at both steps.
    for slope in slopes["copying"]:
        assert 0.02 < slope < 0.5
    assert abs(slopes["copying"][1] / slopes["copying"][0] - 1) < 0.05


if __name__ == "__main__":
    main()
