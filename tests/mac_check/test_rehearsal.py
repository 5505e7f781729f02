"""The kit's own programs for Apple silicon, run by its script, in tests/macho's loader with the fake as Metal."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHO = ROOT / "build" / "macho"
FAKE = MACHO / "arm64" / "lib" / "libumo_fake_metal.so"
KERNELS = MACHO / "arm64" / "lib" / "libumo_msl_kernels.so"


@pytest.fixture(scope="module")
def rehearsed(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of programs that start those of the kit in the loader."""
    for needed in (MACHO / "loader" / "macho_run", FAKE, KERNELS):
        if not needed.is_file():
            pytest.skip(f"{needed.relative_to(ROOT)} is not built (pytest tests/macho does)")
    thin = tmp_path_factory.mktemp("thin")
    folder = tmp_path_factory.mktemp("rehearsed")
    for path in sorted((kit / "programs").rglob("*")):
        if not path.is_file():
            continue
        made = thin / path.relative_to(kit / "programs")
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["llvm-lipo-14", "-thin", "arm64", path, "-output", made], check=True, timeout=60)
        start = folder / path.name
        start.write_text(f'#!/bin/sh\nexec "{ROOT}/tests/macho/run" "{made}" "$@"\n')
        start.chmod(0o755)
    return folder


@pytest.mark.slow
def test_the_kits_programs_pass_in_the_loader(mac_check, rehearsed):
    ran = mac_check(
        "--programs",
        rehearsed,
        UMO_MACHO_METAL=str(FAKE),
        FAKE_METAL_KERNELS=str(KERNELS),
        FAKE_METAL="page=16384",
    )
    assert ran.rc == 0, ran.report
    assert len(ran.verdicts()) == 19
    assert "RAN ON THE FAKE" in ran.report.splitlines()[0]
    assert re.search(r"page 16384, cache line 128", ran.section("log of step 11:"))
    # Those that Linux itself cannot answer.
    checks = ran.section("checks")
    for name in ("A14", "A21"):
        assert re.search(rf"^{name} holds", checks, re.MULTILINE), checks
