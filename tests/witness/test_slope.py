"""The slope reads callgrind's output rightly and tells a backend that copies from one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from umo.prove import FLAT, Classifier, SlopeError, SlopeUnavailable, slope
from umo.prove.slope import fit, parse_callgrind

MIB = 1 << 20

# main calls work in its own object and memcpy in libc; work calls memcpy too; memcpy calls an inner function of libc,
# which libb calls as well. Self costs: main 10, work 20, b 5, memcpy 100, inner 40, start 7.
DUMP = """# callgrind format
version: 1
desc: Trigger: Client Request: measured
positions: line
events: Ir
summary: 182

ob=(1) /opt/program
fl=(1) a.c
fn=(1) main
+3 6
calls=1 0
* 150
cob=(2) /lib/libc.so.6
cfn=(2) memcpy
calls=3 0
* 60
+1 4

fn=(3) work
0 20
cob=(2)
cfn=(2)
calls=1 0
0 60

ob=(2)
fn=(2)
0 100
cfn=(4) inner
calls=4 0
0 20

fn=(4)
-1 40

fn=(6) start
0 7

ob=(3) /opt/libb.so
fn=(5) b
0 5
cob=(2)
cfn=(4)
calls=1 0
0 20
"""


def is_runtime(name: str) -> bool:
    return Classifier().role(name) == "runtime"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "callgrind"
    path.write_text(DUMP.replace("calls=1 0\n* 150", "cfn=(3)\ncalls=1 0\n* 150"))
    return path


def test_self_costs_are_read_without_the_inclusive_ones(dump):
    profile = parse_callgrind(dump)
    assert profile.trigger == "Client Request: measured"
    assert dict(profile.self_cost) == {
        ("/opt/program", "main"): 10,
        ("/opt/program", "work"): 20,
        ("/lib/libc.so.6", "memcpy"): 100,
        ("/lib/libc.so.6", "inner"): 40,
        ("/lib/libc.so.6", "start"): 7,
        ("/opt/libb.so", "b"): 5,
    }


def test_a_runtime_library_is_charged_to_its_callers(dump):
    profile = parse_callgrind(dump)
    shares = profile.by_object(is_runtime)
    # memcpy: 60 of 120 by main, 60 by work, both of the program; inner: half through memcpy, half by libb
    assert shares == {
        "/opt/program": 10 + 20 + 100 + 20,
        "/opt/libb.so": 5 + 20,
        "/lib/libc.so.6": 7,
    }
    assert sum(shares.values()) == profile.total == 182


def test_an_unknown_event_is_refused(tmp_path):
    path = tmp_path / "callgrind"
    path.write_text("events: Ir Dr\n")
    with pytest.raises(SlopeError, match="one event Ir"):
        parse_callgrind(path)


def test_the_line_is_the_least_squares_one():
    line = fit([(0, 100), (10, 120), (20, 140)])
    assert (line.base, line.slope, line.residual) == pytest.approx((100, 2, 0))
    assert fit([(0, 0), (1, 3), (2, 0)]).residual == pytest.approx(2)


def test_costs_that_rise_and_fall_are_not_flat_although_the_line_is():
    line = fit([(1 * MIB, 1000), (4 * MIB, 900000), (7 * MIB, 1000)])
    assert line.slope == pytest.approx(0)
    assert not line.is_flat()
    assert fit([(1 * MIB, 12000), (4 * MIB, 12300), (7 * MIB, 11900)]).is_flat()


def test_a_line_needs_two_sizes():
    with pytest.raises(ValueError, match="two different sizes"):
        fit([(5, 1), (5, 2)])


def measured(model: str, repository: Path, backends: Path):
    try:
        return slope(
            model,
            repository,
            backends,
            lambda size: [f"IN:FP32:{size // 4}"],
            sizes=(MIB, 8 * MIB),
            requests=1,
        )
    except SlopeUnavailable as error:
        pytest.skip(str(error))


def test_a_backend_that_touches_nothing_is_flat(repository, backends):
    report = measured("null", repository, backends)
    assert report.sizes == (MIB, 8 * MIB)
    assert report.by_role["backend"].is_flat()
    assert report.total.is_flat()
    assert 0 < report.by_role["backend"].base < 5000


def test_a_copying_backend_is_charged_with_libcs_memcpy(repository, backends):
    report = measured("copying", repository, backends)
    # Two copies by wide registers, load and store; the run makes libc copy by one method at every size.
    assert 0.05 < report.by_role["backend"].slope < 0.5
    assert not report.by_role["backend"].is_flat()
    assert abs(report.by_role["server"].slope) < FLAT


def test_a_copy_that_no_symbol_shows_has_a_slope(repository, backends):
    report = measured("sneaky", repository, backends)
    # rep movsb once a byte, and 16-byte registers
    assert 1 < report.by_role["backend"].slope < 2
    assert abs(report.by_role["server"].slope) < FLAT


def test_a_model_that_fails_is_reported_in_the_servers_words(repository, backends):
    with pytest.raises(SlopeError, match="unexpected inference input 'WRONG'"):
        slope(
            "null",
            repository,
            backends,
            lambda size: [f"WRONG:FP32:{size // 4}"],
            sizes=(MIB, 2 * MIB),
        )


def test_a_missing_host_program_says_what_to_do(repository, backends, monkeypatch):
    monkeypatch.setenv("UMO_INPROC_INFER", "/nowhere/inproc_infer")
    with pytest.raises(SlopeUnavailable, match="make build"):
        slope("null", repository, backends, lambda size: [], sizes=(1, 2))
