"""mac-check runs every step whatever becomes of the others, and its report tells no names."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

UUID = "00008103-001A-2D3C-0E90-801E00112233"
USER_FOLDER = "/var/folders/q2/7wz5_identity0000gn"
SHELLS = [("dash",), ("bash", "--posix")]


def test_all_steps_pass_against_the_fake(mac_check, build):
    ran = mac_check("--programs", build, "--fake", build / "lib")
    failed = [i for i, verdict in enumerate(ran.verdicts().values(), 1) if verdict != "passed"]
    assert failed == [], "\n".join(ran.section(f"log of step {i}:") for i in failed)
    assert ran.rc == 0, ran.report
    assert "RAN ON THE FAKE" in ran.report.splitlines()[0]
    verdicts = ran.verdicts()
    assert len(verdicts) == 19
    assert set(verdicts.values()) == {"passed"}
    checks = ran.section("checks").split("\n")
    names = {line[:3] for line in checks if re.match(r"[WA]\d\d ", line)}
    assert names == {f"W{i:02}" for i in range(1, 13)} | {f"A{i:02}" for i in range(1, 22)}
    assert "does-not-hold" not in ran.section("checks")
    rows = [line for line in ran.section("benchmarks").splitlines() if line.startswith("{")]
    assert any('"metal_launch_and_wait"' in row for row in rows)
    assert any('"wrap_first_1MB"' in row for row in rows)
    assert all("stand-in" in row for row in rows if '"metal_' in row)
    for step in range(1, 20):
        assert ran.section(f"log of step {step}:").strip()


def test_a_claim_that_does_not_hold_fails_its_step(mac_check, programs, build, wrong_kernels):
    folder = programs(mac_probe=f'exec "{build}/tools/mac-check/mac_probe" "$@"')
    ran = mac_check("--programs", folder, "--fake", build / "lib", FAKE_METAL_KERNELS=str(wrong_kernels))
    assert ran.rc == 1
    verdicts = ran.verdicts()
    assert verdicts["witnesses, validated"] == "FAILED: exit status 1"
    assert verdicts["assumptions, validated"] == "FAILED: exit status 1"
    assert verdicts["benchmarks"] == "FAILED: exit status 1"
    assert "W01 does-not-hold" in ran.section("checks")


@pytest.mark.parametrize("shell", SHELLS, ids=["dash", "bash"])
def test_a_crash_and_a_hang_are_noted_and_the_rest_runs(mac_check, programs, shell):
    folder = programs(
        mem_region_test="kill -SEGV $$",
        mem_view_test='echo begun; trap "" TERM; while :; do sleep 1; done',
        contract="echo seen; exit 3",
        driver_table_test="kill -KILL $$",
    )
    ran = mac_check("--programs", folder, "--limit", "1", shell=shell)
    assert ran.rc == 1
    verdicts = ran.verdicts()
    assert verdicts["regions and wraps"] == "FAILED: crashed, signal 11"
    assert verdicts["own views of shared memory"] == "FAILED: not done after 1 s"
    assert verdicts["contract, validated"] == "FAILED: exit status 3"
    assert verdicts["driver's table, validated"] == "FAILED: killed by the system"
    assert verdicts["pages of the system"] == verdicts["benchmark of wraps"] == "passed"
    assert "6 of 19 steps did not pass" in ran.section("summary")
    assert "codesign" in ran.section("summary")
    assert "begun" in ran.section("log of step 4:")
    assert "seen" in ran.section("log of step 12:")


def test_what_is_missing_or_does_not_start_is_noted(mac_check, programs):
    folder = programs()
    (folder / "wrap").unlink()
    (folder / "contract").write_bytes(b"\xcf\xfa\xed\xfe" + bytes(64))
    ran = mac_check("--programs", folder)
    assert ran.rc == 1
    verdicts = ran.verdicts()
    assert verdicts["benchmark of wraps"] == "FAILED: there is no program wrap"
    assert verdicts["contract, validated"] == "FAILED: it does not start"
    assert verdicts["witnesses, validated"] == "passed"


def test_a_machine_without_metal_is_told_so(mac_check, build):
    ran = mac_check("--programs", build, "--fake", build / "lib", FAKE_METAL="devices=0")
    assert ran.rc == 1
    verdicts = ran.verdicts()
    assert verdicts["own views of shared memory"] == "passed"
    assert verdicts["what Metal says of itself"] == "FAILED: exit status 1"
    assert verdicts["contract, validated"] == "NOT RUN: there is no usable Metal device"
    assert "Metal has no device here" in ran.section("log of step 11:")


def test_validation_is_on_for_what_is_validated_only(mac_check, programs):
    names = ("MTL_DEBUG_LAYER", "MTL_DEBUG_LAYER_ERROR_MODE", "MTL_SHADER_VALIDATION", "CFLOG_FORCE_STDERR")
    show = f'echo "layer={" ".join(f"${{{name}-none}}" for name in names)}"'
    ran = mac_check("--programs", programs(contract=show, mac_probe=show, wrap=show), MTL_DEBUG_LAYER="7")
    assert "layer=1 assert 1 1\n" in ran.section("log of step 12:")
    assert "layer=none none none none\n" in ran.section("log of step 15:")
    assert "layer=1 assert 1 1\n" in ran.section("log of step 16:")
    assert "layer=none none none none\n" in ran.section("log of step 18:")


def test_the_report_tells_no_names(mac_check, programs, tmp_path, script):
    home = tmp_path / "home of jane"
    home.mkdir()
    host = os.uname().nodename
    folder = programs(
        contract=f'echo "$HOME/x, $TMPDIR, $(pwd), janedoe, janedoes, <janedoe@{host}>"; echo {UUID} {script}',
    )
    ran = mac_check(
        "--programs",
        folder,
        HOME=str(home),
        USER="janedoe",
        LOGNAME="janedoe",
        TMPDIR=str(tmp_path),
    )
    assert ran.rc == 0
    assert "~/x, TMP, TMP, <user>, janedoes, <<user>@<host>>" in ran.section("log of step 12:")
    assert "<uuid> KIT/mac-check" in ran.section("log of step 12:")
    for secret in (str(home), str(tmp_path), str(script.parent), UUID):
        assert secret not in ran.report
    assert not re.search(r"\bjanedoe\b", ran.report)


@pytest.mark.parametrize("name", ["metal", "test", "page"])
def test_a_name_that_is_a_word_of_the_report_is_taken_out_of_homes_only(mac_check, programs, name):
    folder = programs(contract=f"echo a {name} of the {name}, /Users/{name}/x, /home/{name}/y")
    ran = mac_check("--programs", folder, USER=name, LOGNAME=name)
    assert f"a {name} of the {name}, /Users/<user>/x, /home/<user>/y\n" in ran.section("log of step 12:")


def by_argument(place: int, answers: dict[str, str]) -> str:
    """A shell script that answers by one of its arguments."""
    cases = " ".join(f"{word}) echo '{answer}' ;;" for word, answer in answers.items())
    return f'case "${place}" in {cases} esac'


@pytest.fixture
def as_a_mac(tmp_path: Path):
    """A PATH on which the system's own commands answer as a Mac's do."""

    def make(**answers: str) -> str:
        answers = {
            "uname": by_argument(1, {"-n": "Janes-Mac.local", "-s": "Darwin", "*": "Darwin 25.0.0 arm64"}),
            "hostname": "echo Janes-Mac.local",
            "scutil": 'echo "Jane\'s MacBook Pro"',
            "id": by_argument(1, {"-F": "Jane Doe", "*": "janed"}),
            "sw_vers": by_argument(1, {"-productVersion": "26.1", "*": "25B78"}),
            "sysctl": by_argument(2, {"hw.model": "Mac16,8", "iogpu.wired_limit_mb": "0", "hw.memsize": "17179869184"}),
            "pmset": "echo \"Now drawing from 'AC Power'\"; echo ' -InternalBattery-0 (id=4653155)'",
            "xattr": "exit 0",
            "caffeinate": "exit 0",
            "getconf": by_argument(
                1,
                {
                    "DARWIN_USER_DIR": f"{USER_FOLDER}/0/",
                    "DARWIN_USER_TEMP_DIR": f"{USER_FOLDER}/T/",
                    "DARWIN_USER_CACHE_DIR": f"{USER_FOLDER}/C/",
                    "*": "16384",
                },
            ),
        } | answers
        folder = tmp_path / "mac"
        folder.mkdir(exist_ok=True)
        for name, text in answers.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return make


def test_a_macs_facts_are_told_and_its_names_are_not(mac_check, programs, as_a_mac):
    folder = programs(
        contract="echo 2026 contract[1:2] Metal API Validation Enabled; echo by janed, Jane Doe on Janes-Mac.local"
    )
    ran = mac_check("--programs", folder, PATH=as_a_mac(), USER="janed", LOGNAME="janed")
    assert ran.rc == 0, ran.said
    facts = ran.section("facts")
    for row in (
        "macOS +26.1",
        "build +25B78",
        "hw.model +Mac16,8",
        "iogpu.wired_limit_mb +0",
        "hw.memsize +17179869184",
    ):
        assert re.search(f"^{row}$", facts, re.MULTILINE), row
    assert "Now drawing from 'AC Power'" in facts
    assert "by <user>, <user> on <host>" in ran.section("log of step 12:")
    assert not re.search(r"(?i)jane|4653155", ran.report)
    assert "Metal said that its validation was on" in ran.section("summary")


def test_a_macs_folders_of_the_user_are_not_told(mac_check, programs, as_a_mac):
    folder = programs(contract=f"for part in 0 T C X; do echo at {USER_FOLDER}/$part/metal; done")
    ran = mac_check("--programs", folder, PATH=as_a_mac())
    log = ran.section("log of step 12:")
    for name in ("DARWIN_USER_DIR", "DARWIN_USER_TEMP_DIR", "DARWIN_USER_CACHE_DIR", "<user folder>/X"):
        assert f"at {name}/metal\n" in log
    assert "identity" not in ran.report


def test_a_mac_is_kept_awake_for_as_long_as_the_script_runs(mac_check, programs, as_a_mac, tmp_path):
    told = tmp_path / "awake"
    folder = programs(wrap=f'until [ -s "{told}" ]; do sleep 0.1; done; ps -o args= -p "$(sed "s/.* //" "{told}")"')
    path = as_a_mac(caffeinate=f'echo "$@" >"{told}"')
    ran = mac_check("--programs", folder, "--limit", "9", PATH=path)
    assert re.fullmatch(r"-i -w \d+\n", told.read_text())
    assert "mac-check" in ran.section("log of step 19:")


def test_a_report_tells_when_metal_did_not_validate(mac_check, programs, as_a_mac):
    ran = mac_check("--programs", programs(), PATH=as_a_mac())
    assert "Metal did not say that its validation was on" in ran.section("summary")


def test_programs_in_quarantine_are_not_run_but_explained(mac_check, programs, as_a_mac, script):
    path = as_a_mac(xattr="echo com.apple.provenance; echo com.apple.quarantine")
    ran = mac_check("--programs", programs(), PATH=path)
    assert ran.rc == 2
    assert f'xattr -dr com.apple.quarantine "{script.parent}"' in ran.said
    assert ran.report == ""


def test_an_endless_log_is_shortened(mac_check, programs):
    ran = mac_check("--programs", programs(contract="i=0; while [ $i -lt 9000 ]; do echo line $i.; i=$((i+1)); done"))
    log = ran.section("log of step 12:")
    assert "line 0.\n" in log
    assert "line 1999.\n[... 6000 lines ...]\nline 8000.\n" in log
    assert "line 8999.\n" in log


def test_a_folder_that_cannot_be_written_sends_the_report_to_a_temporary_one(
    programs, tmp_path, script, clean_environment
):
    done = subprocess.run(
        ["/bin/sh", str(script), "--programs", str(programs())],
        cwd="/proc",
        env=clean_environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    found = re.search(r"The report is (\S+)", done.stdout)
    assert found is not None
    assert Path(found[1]).parent == tmp_path
    assert "all 19 steps passed" in Path(found[1]).read_text()


@pytest.mark.parametrize("shell", SHELLS, ids=["dash", "bash"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("deaf", ["", 'trap "" TERM; '], ids=["willing", "deaf"])
def test_nothing_is_left_behind_when_it_is_ended(programs, tmp_path, script, clean_environment, shell, end, deaf):
    folder = programs(os_pages_test=f"{deaf}echo $$ >../pid; while :; do sleep 1; done")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    running = subprocess.Popen(
        [*shell, str(script), "--programs", str(folder)],
        cwd=tmp_path,
        env=clean_environment(TMPDIR=str(temporary)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not (temporary / "pid").exists() or not (temporary / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    step = int((temporary / "pid").read_text())
    running.send_signal(end)
    assert running.wait(timeout=20) == 1
    assert [path.name for path in temporary.iterdir()] == ["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)


@pytest.mark.parametrize("shell", SHELLS, ids=["dash", "bash"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_a_check_ends_with_the_script(
    programs, build, wrong_kernels, tmp_path, script, clean_environment, alive, eventually, shell, end
):
    told = tmp_path / "hangs"
    folder = programs(mac_probe=f'exec "{build}/tools/mac-check/mac_probe" "$@"')
    running = subprocess.Popen(
        [*shell, str(script), "--programs", str(folder), "--fake", str(build / "lib")],
        cwd=tmp_path,
        env=clean_environment(FAKE_METAL_KERNELS=str(wrong_kernels), WRONG_HANG=f"1 {told}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: told.exists() and told.read_text().endswith("\n"))
    check = int(told.read_text())
    assert alive(check)
    running.send_signal(end)
    assert running.wait(timeout=20) == 1
    assert not alive(check)


@pytest.mark.parametrize(("step", "source"), [("witnesses", "witnesses.c"), ("assumptions", "assumptions.c")])
def test_a_step_takes_longer_than_all_its_checks_may(script, step, source):
    give_up_s = 10
    limits = [int(text) for text in re.findall(r"\.limit_s = (\d+)", script.with_name(source).read_text())]
    assert len(limits) == {"witnesses": 12, "assumptions": 21}[step]
    found = re.search(rf'^step "{step}, validated" (\d+) ', script.read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= sum(limits) + give_up_s * len(limits)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--frobnicate"], "--help"),
        (["--programs"], "needs a value"),
        (["--programs", "/nonexistent"], "no folder of programs"),
        (["--limit", "soon"], "whole seconds"),
    ],
)
def test_a_mistake_in_the_command_is_told_before_anything_runs(mac_check, arguments, word):
    ran = mac_check(*arguments)
    assert ran.rc == 2
    assert word in ran.said
    assert ran.report == ""


def test_help_names_every_option(mac_check):
    ran = mac_check("--help")
    assert ran.rc == 0
    for option in ("--programs", "--fake", "--out", "--limit"):
        assert option in ran.said


def test_the_script_is_posix_shell(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (apt has it)")
    subprocess.run(["shellcheck", "-s", "sh", str(script)], check=True, timeout=60)
