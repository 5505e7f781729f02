"""mac_probe notices what does not hold: a check that cannot fail would prove nothing on a Mac."""

from __future__ import annotations

import json

import pytest

FAILS = 1


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


def test_metal_ending_a_process_is_a_refusal_where_it_is_asked_for_one(probe):
    ran = probe("check", "A03")
    assert ran.returncode == -6
    ran = probe("assumptions")
    assert ran.returncode == 0
    assert "ended by signal 6" in ran.stdout
    assert "A03 holds" in ran.stdout


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
