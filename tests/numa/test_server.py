"""Host policies of the real server on a machine that has two nodes: where the memory of an instance is then."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("UMO_BUILD_DIR", ROOT / "build" / "release"))
PROGRAM = BUILD / "tests" / "inproc" / "host_policy_test"
BACKEND = BUILD / "backends" / "umo_identity" / "libtriton_umo_identity.so"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"numa_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


machine = load("machine")


def library() -> Path | None:
    """The server's, as triton_inproc.c finds it."""
    named = os.environ.get("UMO_TRITON_LIBRARY")
    found = (
        [Path(named)]
        if named
        else sorted(ROOT.glob(".venv/lib/python3*/site-packages/nvidia_pytriton.libs/libtritonserver*.so"))
    )
    return found[0] if found else None


def test_memory_of_an_instance_is_on_the_node_of_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        machine.check()
    except machine.Missing as reason:
        pytest.skip(str(reason))
    server = library()
    if server is None:
        pytest.skip("there is no libtritonserver; scripts/setup installs nvidia-pytriton")
    # Its libraries lie beside it and are found by triton_inproc.c; ldd has to be told.
    monkeypatch.setenv("LD_LIBRARY_PATH", str(server.parent))
    words = [f"UMO_TRITON_LIBRARY={server}", PROGRAM, BUILD / "backends"]
    (ran,) = machine.run(
        [["/bin/env", *map(str, words)]], files=[server, BACKEND, BUILD / "lib" / "libumo.so.0"], timeout_s=60
    )
    assert ran.status == 0, ran.output
    pages = re.search(r"^node 1: (\d+) pages, 0 elsewhere$", ran.output, re.MULTILINE)
    assert pages is not None and int(pages[1]) >= 512, ran.output
