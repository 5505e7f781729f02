"""The oracles: wheels of the package index that hold Apple's declarations, kept unpacked under build/oracle.

They are fetched once, by name, version and checksum (oracles.txt), and are never part of the repository. A wheel that
differs from its checksum is an error. Where the index is not reached and nothing is kept, OracleError says so; with
UMO_OFFLINE=1 the index is not asked, and OracleOffline lets the tests skip.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "oracle"
MARK = "unpacked"  # holds the checksum of the wheel that the folder was unpacked from
DOWNLOAD_SECONDS = 300


class OracleError(Exception):
    """An oracle cannot be had, or is not the one that was pinned."""


class OracleOffline(OracleError):
    """An oracle is not kept, and UMO_OFFLINE=1 forbids to fetch it."""


@dataclass(frozen=True)
class Pin:
    name: str
    requirement: str
    python: str
    platform: str
    file: str
    sha256: str
    parts: str  # the folder of the wheel that is unpacked


def pins(path: Path = HERE / "oracles.txt") -> dict[str, Pin]:
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Pin(*(word.strip() for word in line.split("|")))
            found[pin.name] = pin
    return found


def download(pin: Pin, folder: Path) -> Path:
    """Asks the package index, through pip."""
    command = [sys.executable, "-m", "pip", "download", pin.requirement, "--no-deps", "--only-binary=:all:"]
    command += ["--platform", pin.platform, "--python-version", pin.python, "--quiet", "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--retries", "2"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        said = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired:
        said = [f"no answer within {DOWNLOAD_SECONDS} s"]
    path = folder / pin.file
    if not path.is_file():
        reason = said[-1] if said else f"the index gave no {pin.file}"
        raise OracleError(
            f"the oracle {pin.requirement} is not kept in {CACHE.relative_to(ROOT)} and cannot be fetched: {reason} "
            "(UMO_OFFLINE=1 skips the tests that need it)"
        )
    return path


def unpack(pin: Pin, wheel: Path, target: Path) -> None:
    """Checks the wheel, then puts its parts in place all at once."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != pin.sha256:
        raise OracleError(f"{pin.file} has the checksum {found}; oracles.txt pins {pin.sha256}")
    partial = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(pin.parts)]
            archive.extractall(partial, members)
        (partial / MARK).write_text(pin.sha256)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def oracle(name: str, cache: Path = CACHE, listed: dict[str, Pin] | None = None) -> Path:
    """The folder of an oracle's parts: the kept one, else fetched now."""
    pin = (pins() if listed is None else listed)[name]
    target = cache / f"{pin.name}-{pin.sha256[:12]}"
    mark = target / MARK
    if not mark.is_file() or mark.read_text() != pin.sha256:
        if os.environ.get("UMO_OFFLINE") == "1":
            raise OracleOffline(f"UMO_OFFLINE=1, and the oracle {pin.requirement} is not kept")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            unpack(pin, download(pin, Path(folder)), target)
    return target / pin.parts
