"""mac_probe notices what does not hold: a check that cannot fail would prove nothing on a Mac."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

HOLDS, FAILS, UNKNOWN = 0, 1, 2
QUESTIONS = ("A03", "A04", "A05", "A06")


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("W01", "the owner's pointer does not show"),
        ("W03", "the owner's pointer does not show"),
        ("W04", "the owner's pointer does not show"),
        ("W05", "the owner's pointer does not show"),
        ("W06", "the owner's pointer does not show"),
        ("W07", "is wrong"),
        ("W08", "growth in MiB"),
        ("W09", "the owner's pointer does not show"),
        ("W10", "import 0 holds 0"),
        ("W11", "the GPU reads the file's bytes: NO"),
        ("W12", "the owner's pointer does not show"),
        ("A02", "at a distance of 64 bytes the CPU lost"),
        ("A10", "NOT in order"),
        ("A11", "old bytes seen 400 times"),
    ],
)
def test_a_gpu_on_which_a_claim_does_not_hold_is_noticed(probe, wrong_kernels, check, words):
    assert probe("check", check).returncode != FAILS
    ran = probe("check", check, kernels=wrong_kernels)
    assert ran.returncode == FAILS, ran.stdout
    assert words in ran.stdout


@pytest.mark.parametrize(
    ("check", "fake"),
    [
        ("A09", "buffer_max=134217728"),
        ("A09", "working_set=0"),
    ],
)
def test_a_device_with_other_limits_is_noticed(probe, check, fake):
    ran = probe("check", check, fake=fake)
    assert ran.returncode == FAILS, ran.stdout


def test_a_wrong_word_fails_the_witnesses_and_the_others_still_run(probe, wrong_kernels):
    ran = probe("witnesses", kernels=wrong_kernels)
    assert ran.returncode == 1
    lines = [line.split()[:2] for line in ran.stdout.splitlines() if line.startswith("W")]
    assert [name for name, _ in lines] == [f"W{i:02}" for i in range(1, 13)]
    assert {verdict for _, verdict in lines} == {"does-not-hold"}
    assert "12 of 12 do not hold" in ran.stdout


def test_no_time_counts_when_a_result_is_wrong(probe, wrong_kernels):
    ran = probe("bench", kernels=wrong_kernels)
    assert ran.returncode == 1
    assert "no time counts" in ran.stdout
    assert '"claim"' not in ran.stdout


def verdict(ran: subprocess.CompletedProcess[str]) -> str:
    """Of a check that was watched."""
    lines = [line.split()[1] for line in ran.stdout.splitlines() if re.match(r"[WA]\d\d ", line)]
    assert len(lines) == 1, ran.stdout
    assert ran.returncode == (1 if lines[0] == "does-not-hold" else 0)
    return lines[0]


@pytest.mark.parametrize("check", QUESTIONS)
def test_metal_ending_a_process_is_a_refusal_where_it_is_asked_for_one(probe, check):
    assert probe("check", check).returncode == -signal.SIGABRT
    ran = probe("watch", check)
    assert verdict(ran) == "holds"
    assert "ended by signal 6" in ran.stdout


@pytest.mark.parametrize("check", QUESTIONS)
def test_metal_that_takes_what_umo_refuses_makes_umo_stricter(probe, wrong_metal, check):
    assert verdict(probe("watch", check, metal=wrong_metal, WRONG_METAL="takes")) == "stricter"


@pytest.mark.parametrize("check", QUESTIONS)
@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("early", r"signal 6 .*, but not by the question"),
        ("crashes", r"signal 11 "),
        ("exits", r"asking Metal"),
    ],
)
def test_an_end_that_is_no_refusal_does_not_hold(probe, wrong_metal, check, way, words):
    ran = probe("watch", check, metal=wrong_metal, WRONG_METAL=way)
    assert verdict(ran) == "does-not-hold"
    assert re.search(words, ran.stdout)


def test_an_abort_after_the_answer_is_no_refusal(probe, wrong_metal):
    ran = probe("watch", "A03", metal=wrong_metal, WRONG_METAL="late")
    assert verdict(ran) == "does-not-hold"
    assert "but not by the question" in ran.stdout


@pytest.mark.parametrize("check", [*QUESTIONS, "A20"])
def test_a_check_without_a_device_does_not_hold(probe, check):
    assert verdict(probe("watch", check, fake="devices=0")) == "does-not-hold"


def test_a_view_that_fails_for_another_reason_does_not_make_umo_stricter(probe, tmp_path):
    source = tmp_path / "no_mremap.c"
    source.write_text(
        "#include <errno.h>\n#include <sys/mman.h>\n"
        "void *mremap(void *at, size_t bytes, size_t more, int flags, ...)\n{\n"
        "    (void)at, (void)bytes, (void)more, (void)flags;\n    errno = ENOMEM;\n    return MAP_FAILED;\n}\n"
    )
    made = tmp_path / "libno_mremap.so"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-fPIC", "-shared", source, "-o", made], check=True, timeout=60)
    ran = probe("watch", "A20", LD_PRELOAD=str(made))
    assert "a view: UNSUPPORTED" in ran.stdout
    assert verdict(ran) == "does-not-hold"


@pytest.mark.parametrize(
    ("with_set", "without_set", "expected", "words"),
    [
        (1.1, 6.0, HOLDS, None),
        (6.0, 6.0, UNKNOWN, "too close"),
        (4.9, 6.0, UNKNOWN, "too close"),
        (7.4, 6.0, UNKNOWN, "too close"),
        (7.6, 6.0, FAILS, None),
        (1.0, 1.4, UNKNOWN, "stays warm as well"),
        (9.0, 1.4, UNKNOWN, "stays warm as well"),
    ],
)
def test_residency_is_judged_by_a_clear_difference_only(judge, with_set, without_set, expected, words):
    assert judged(judge.judge_residency, with_set, without_set, words=words) == expected


@pytest.mark.parametrize(
    ("first", "second", "ignored", "again", "expected", "words"),
    [
        (900, 100, 900, 850, HOLDS, None),
        (900, 500, 900, 850, FAILS, None),
        (900, 500, 900, 100, FAILS, None),
        (900, 100, 900, 440, UNKNOWN, "Metal's own cache"),
        (900, 100, 900, 460, HOLDS, None),
    ],
)
def test_an_archive_is_judged_only_where_metals_own_cache_does_less(
    judge, first, second, ignored, again, expected, words
):
    assert judged(judge.judge_archive, first, second, ignored, again, words=words) == expected


@pytest.mark.parametrize(
    ("by_import", "by_use", "expected"),
    [(0, 0, HOLDS), (256, 1, HOLDS), (512, 0, FAILS), (320, 0, FAILS), (0, 256, FAILS), (256, 64, FAILS)],
)
def test_metals_count_may_hold_an_import_once_and_no_more(judge, by_import, by_use, expected):
    assert judge.judge_metals_count(*map(ctypes.c_double, (256, by_import, by_use))) == expected


def judged(function, *times: float, words: str | None) -> int:
    """The verdict, after a look at the reason given for it."""
    why = ctypes.c_char_p()
    result = function(*map(ctypes.c_double, times), ctypes.byref(why))
    assert (why.value is None) == (words is None)
    assert words is None or words in why.value.decode()
    return result


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        ("residency=0", "this system has no residency sets"),
        ("name=Apple Paravirtual device", "residency sets crash"),
    ],
)
def test_residency_is_not_judged_where_there_is_none(probe, fake, words):
    ran = probe("check", "A15", fake=fake)
    assert ran.returncode == UNKNOWN
    assert words in ran.stdout
    assert "after the rest" not in ran.stdout


def test_a_copy_that_only_metal_counts_is_noticed(probe, wrong_kernels):
    ran = probe("check", "W08", kernels=wrong_kernels, WRONG_HOARD="1")
    assert ran.returncode == FAILS
    assert "Metal counts more than the import" in ran.stdout


def test_private_memory_is_asked_about_again_while_it_is_imported(probe):
    assert "anonymous memory, while it is imported, is shared: no" in probe("check", "A19").stdout


def children(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.fixture
def hanging_probe(build, wrong_kernels, tmp_path, clean_environment, eventually):
    """Starts mac_probe; gives it, and the number of the process in which the GPU hangs, at the nth launch."""
    started = []

    def start(times: int, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
        told = tmp_path / "hangs"
        env = clean_environment(
            UMO_METAL_LIBRARY=str(build / "lib" / "libumo_fake_metal.so"),
            FAKE_METAL_KERNELS=f"{wrong_kernels}:{build / 'lib' / 'libumo_msl_kernels.so'}",
            UMO_METAL_CACHE="0",
            WRONG_HANG=f"{times} {told}",
        )
        command = [build / "tools" / "mac-check" / "mac_probe", *arguments]
        running = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(running)
        eventually(lambda: told.exists() and told.read_text().endswith("\n"))
        return running, int(told.read_text())

    yield start
    for running in started:
        running.kill()
        running.wait()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_probe_that_is_ended_ends_its_check(hanging_probe, end, alive, eventually):
    running, check = hanging_probe(1, "witnesses")
    assert check != running.pid
    running.send_signal(end)
    assert running.wait(timeout=20) == FAILS
    eventually(lambda: not alive(check))


def test_the_other_half_of_a_fork_ends_with_its_parent(hanging_probe, alive, eventually):
    running, check = hanging_probe(5, "check", "W12")
    assert check == running.pid
    others = children(check)
    assert len(others) == 1
    os.kill(check, signal.SIGKILL)
    assert running.wait(timeout=20) == -signal.SIGKILL
    eventually(lambda: not alive(others[0]))


def test_a_first_device_that_does_not_open_fails_and_another_one_does_not(probe, wrong_metal):
    ran = probe("facts", fake="devices=2", metal=wrong_metal, WRONG_METAL="loses-second")
    assert "device 0: " in ran.stdout
    assert "device 1 does not open" in ran.stdout
    assert ran.returncode == 0
    ran = probe("facts", fake="devices=2", metal=wrong_metal, WRONG_METAL="loses-first")
    assert "device 0 does not open" in ran.stdout
    assert "device 1 does not open" in ran.stdout
    assert ran.returncode == 1


def test_benchmarks_are_rows_with_an_opponent_and_a_note_on_the_stand_in(probe):
    ran = probe("bench")
    assert ran.returncode == 0, ran.stdout
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {row["claim"] for row in rows} >= {
        "metal_launch_and_wait",
        "metal_gather_8x1MB",
        "metal_request_in_place_1MB",
        "metal_request_in_place_vs_private_16MB",
    }
    for row in rows:
        assert {"claim", "value", "unit", "opponent", "ratio", "spread", "command", "note"} <= set(row)
        assert row["spread"][0] <= row["ratio"] <= row["spread"][1]
        assert row["note"] == "stand-in: times mean nothing"


@pytest.mark.parametrize("fake", ["unified=0", "residency=0,metal3=0", "name=Apple Paravirtual device,fresh_garbage=1"])
def test_witnesses_hold_on_other_machines(probe, fake):
    ran = probe("witnesses", fake=fake)
    assert ran.returncode == 0, ran.stdout


def test_facts_name_the_device(probe):
    ran = probe("facts", fake="devices=2,name=Apple M7")
    assert ran.returncode == 0
    assert ran.stdout.count("Apple M7") == 2
    assert "stand-in" in ran.stdout


def test_a_machine_without_metal_gets_words(probe):
    ran = probe("facts", fake="devices=0")
    assert ran.returncode == 1
    assert "no Metal device" in ran.stdout


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["check"], ["check", "W99"]])
def test_a_wrong_command_is_refused(probe, arguments):
    ran = probe(*arguments)
    assert ran.returncode == 2
    assert ran.stderr
