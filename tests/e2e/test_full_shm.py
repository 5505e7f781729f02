"""A full /dev/shm under umo.client and the C ring: nobody dies of it, no answer is wrong, and room that comes back is
used again. Each runs in a mount namespace whose /dev/shm is a small one of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIBRARY = Path(os.environ.get("UMO_LIBRARY", ROOT / "build" / "release" / "lib" / "libumo.so"))
INSIDE = 'mount -t tmpfs -o size="$0" none /dev/shm && exec "$@"'


def run(size: str, *arguments: str) -> dict[str, Any]:
    """What hostile/full.py says where /dev/shm has this size."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to give a program its own /dev/shm")
    apart = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    allowed = subprocess.run([*apart, "sh", "-c", INSIDE, size, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"no mount namespace may be made here: {allowed.stderr.strip()[:200]}")
    paths = f"{HERE}{os.pathsep}{ROOT / 'python'}"
    ran = subprocess.run(
        [*apart, "sh", "-c", INSIDE, size, sys.executable, "-m", "hostile.full", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ran.returncode == 0, f"{ran.returncode}\n{ran.stderr[-3000:]}"
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_c_ring_says_that_there_is_no_memory() -> None:
    if not LIBRARY.exists():
        pytest.skip("libumo is not built")
    said = run("8m", "ring", str(LIBRARY))
    assert said["create"] == 0
    assert said["room"] == "OK"
    assert set(said["full"]) == {"NOMEM"}
    assert said["again"] == ["OK", "OK"]
    assert said["left"] == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_goes_the_conventional_way_until_there_is_room(protocol: str) -> None:
    said = run("24m", "client", protocol)
    assert said["full"] == 30
    assert said["empty"] == 10
    assert said["in_lanes"] >= 2 << 20, f"lanes were never used again: {said}"
    assert said["full_again"] == 10
    assert said["alive"] and said["left"] == 0, said
