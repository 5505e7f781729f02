"""Records the brackets of real requests: umo_kernel in a real server in the process, seen by placement_record.so.

    python bench/placement_record.py [--build build/release] [--out bench/placement_traces]

One file a setting, with a line a bracket; bench/placement.c replays them. What the client does with its own memory
between requests passes no bracket and is not in them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
__kernel void twice(__global const float *in, __global float *out) { out[get_global_id(0)] = 2 * in[get_global_id(0)]; }
"""
CONFIG = """backend: "umo_kernel"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "unified_memory" value { string_value: '{"enable": %s}' } }
parameters { key: "kernel" value { string_value:
  '{"function": "twice", "arguments": [{"input": "IN"}, {"output": "OUT"}],'
  ' "global_size": ["batch*IN[0]"], "outputs": {"OUT": ["IN[0]"]}}' } }
"""
# Name: unified memory on, elements, further arguments of inproc_infer.
SETTINGS = {
    "shared_1mb": ("true", 262144, ["--shm"]),
    "pieces_1mb": ("true", 262144, ["--pieces", "4"]),
    "parallel_256kb": ("true", 65536, ["--shm", "--parallel", "4"]),
    "conventional_1mb": ("false", 262144, ["--shm"]),
    "conventional_16kb": ("false", 4096, ["--shm"]),
}


def record(build: Path, recorder: Path, enable: str, elements: int, more: list[str], out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        version = Path(folder) / "twice" / "1"
        version.mkdir(parents=True)
        (version / "model.cl").write_text(PROGRAM)
        (version.parent / "config.pbtxt").write_text(CONFIG % enable)
        size = 4 * elements
        command = [str(build / "bin/inproc_infer"), "--repo", folder, "--backends", str(build / "backends")]
        command += ["--model", "twice", "--input", f"IN:FP32:1,{elements}", "--output", f"OUT:{size}"]
        command += ["--requests", "100", "--warmup", "0", *more]
        environment = dict(os.environ, LD_PRELOAD=str(recorder), PLACEMENT_RECORD=str(out), UMO_ROOT=str(ROOT))
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/placement_traces")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    recorder = next(options.build.glob("bench/*placement_record.so"))
    for name, (enable, elements, more) in SETTINGS.items():
        out = options.out / f"umo_kernel_{name}.csv"
        record(options.build.resolve(), recorder.resolve(), enable, elements, more, out.resolve())
        print(f"{out}: {len(out.read_text().splitlines()) - 1} brackets")


if __name__ == "__main__":
    main()
