"""The census lists exactly the pages that a process wrote, and says so where it cannot."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from umo.prove import Census, CensusError, CensusReport, CensusUnavailable, Region, Spy
from umo.prove.census import _minus, _union

PAGE = os.sysconf("SC_PAGESIZE")
PAGES = 512
# stdin, stdout and the stack of the probe itself.
NOISE = 16
KERNEL = tuple(int(part) for part in platform.release().split(".")[:2])


class Probe:
    """The probe obeying commands, with the census at hand."""

    def __init__(self, process: subprocess.Popen[str], census: Census, key: str) -> None:
        self.process = process
        self.census = census
        self.key = key

    def say(self, command: str) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", command

    def counted(self, command: str) -> CensusReport:
        self.census.arm()
        self.say(command)
        return self.census.scan()


def start(program: Path, folder: Path, census: bool) -> tuple[subprocess.Popen[str], Spy, str]:
    key = f"/umo-witness-{os.getpid()}-{folder.name}"
    file = folder / "file"
    file.write_bytes(b"a" * PAGES * PAGE)
    with open("/dev/shm" + key, "wb") as shared:
        shared.truncate(PAGES * PAGE)
    env = {**os.environ, **Spy.environment(folder / "spy", census=census)}
    process = subprocess.Popen(
        [str(program), "pages", key, str(file)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process, Spy(folder / "spy"), key


@pytest.fixture
def page_probe(probe: Path, tmp_path: Path) -> Iterator[Probe]:
    process, spy, key = start(probe, tmp_path, census=True)
    try:
        census = Census(spy.file(process.pid))
        why = census.why_unavailable()
        if why and KERNEL < (6, 7):
            pytest.skip(f"no census on this machine: {why}")
        assert why is None, why
        # The first command writes what every later one finds written: the C library's buffers, resolved symbols.
        ready = Probe(process, census, key)
        ready.say("write 0")
        yield ready
    finally:
        os.unlink("/dev/shm" + key)
        assert process.stdin
        process.stdin.close()
        process.wait(10)


def about(count: int) -> range:
    return range(count, count + NOISE)


def test_an_idle_process_dirties_nothing(page_probe):
    time.sleep(0.05)  # it may still be on its way to wait for the next command
    page_probe.census.arm()
    report = page_probe.census.scan()
    assert report.outside([]) == 0
    assert report.complete and report.unknown == []


@pytest.mark.parametrize(
    "command, kind, pages",
    [
        ("write 90", "anonymous", 90),  # pages that were there
        ("fill 200", "anonymous", 200),  # pages that were not
        ("same 50", "anonymous", 50),  # the value that is there already
        (
            "unlock 60",
            "anonymous",
            60,
        ),  # memory that was not writable when the census began
        ("syscall 70", "anonymous", 70),  # written by the kernel
        ("new 80", "anonymous", 80),  # a mapping made meanwhile
        ("private 40", "file", 40),  # a private mapping of a file
        ("shared 30", "shared", 30),
    ],
)
def test_written_pages_are_counted(page_probe, command, kind, pages):
    if kind in ("shared", "file"):
        page_probe.say(command)  # the first touch of such a page costs one page fault more
    report = page_probe.counted(command)
    assert report.by_kind()[kind] in about(pages)
    assert report.outside([]) in about(pages)
    # What was there when the census began is watched page by page, also what could not be written then.
    assert {m.is_new for m in report.mappings if m.dirty_pages >= pages} == {command.startswith("new")}


def test_small_counts_are_exact_beside_the_same_command_doing_nothing(page_probe):
    page_probe.say("write 1")
    nothing = min(page_probe.counted("write 0").outside([]) for _ in range(5))
    assert min(page_probe.counted("write 3").outside([]) for _ in range(5)) == nothing + 3


@pytest.mark.parametrize("command", ["read 200", "peek 200", "look 200"])
def test_pages_that_were_only_read_are_not_listed(page_probe, command):
    report = page_probe.counted(command)
    assert report.dirty_pages in about(0)
    # Their first touch is a page fault, so they are in the upper bound, and only the first time.
    assert page_probe.counted(command).outside([]) in about(0)


def test_a_page_that_is_mapped_twice_counts_once(page_probe):
    report = page_probe.counted("both 30")
    assert report.by_kind()["shared"] == 60
    assert report.dirty_pages in about(30)


def test_memory_that_is_gone_by_the_scan_is_counted_as_vanished(page_probe):
    report = page_probe.counted("fleeting 200")
    assert report.dirty_pages in about(0)
    assert report.vanished_pages in range(196, 205)
    assert report.outside([]) in about(200)


def test_declared_outputs_are_left_out_page_by_page(page_probe):
    key = page_probe.key
    page_probe.say("shared 30")
    assert page_probe.counted("shared 30").outside([Region(key, 8 * PAGE, 30 * PAGE)]) in about(0)
    # pages 8 to 37 are written; an output that ends in the middle of page 17 covers ten of them
    assert page_probe.counted("shared 30").outside([Region(key, 8 * PAGE + 5, 9 * PAGE + 1)]) in about(20)
    # the right size at the wrong place, and no size, excuse nothing
    assert page_probe.counted("shared 30").outside([Region(key, 100 * PAGE, 30 * PAGE)]) in about(30)
    assert page_probe.counted("shared 30").outside([Region(key, 8 * PAGE, 0)]) in about(30)
    with pytest.raises(CensusError, match="no shared-memory object or file /gone"):
        page_probe.counted("shared 30").outside([Region("/gone", 0, PAGE)])


def test_every_arm_starts_anew(page_probe):
    assert page_probe.counted("write 90").dirty_pages in about(90)
    assert page_probe.counted("write 10").dirty_pages in about(10)
    assert page_probe.census.scan().dirty_pages in about(10)


def test_a_process_without_the_helper_says_so(probe, tmp_path):
    process, spy, key = start(probe, tmp_path, census=False)
    try:
        with pytest.raises(CensusUnavailable, match="UMO_SPY_CENSUS=1"):
            Census(spy.file(process.pid)).arm()
    finally:
        os.unlink("/dev/shm" + key)
        assert process.stdin
        process.stdin.close()
        process.wait(10)


def test_a_kernel_that_refuses_is_named_with_its_reason(page_probe):
    page_probe.say("forbid 1")
    assert "userfaultfd is refused" in (page_probe.census.why_unavailable() or "")
    with pytest.raises(CensusUnavailable, match="not permitted"):
        page_probe.census.arm()


def test_ranges_unite_and_subtract():
    assert _union([(5, 7), (0, 2), (2, 4), (6, 9)]) == [(0, 4), (5, 9)]
    assert _minus([(0, 10), (20, 30)], [(2, 4), (9, 22), (25, 26)]) == [
        (0, 2),
        (4, 9),
        (22, 25),
        (26, 30),
    ]
    assert _minus([(0, 10)], [(0, 10)]) == []
    assert _minus([(0, 10)], []) == [(0, 10)]
