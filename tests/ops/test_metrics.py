"""What a real server shows of umo: by Prometheus' own rules, as documented, and after a model was loaded anew."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest  # noqa: E402
import served  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from umo.server import TritonServer  # noqa: E402
from umo.top.scrape import FAMILIES  # noqa: E402

DOC = served.ROOT / "docs" / "monitoring.md"
COMMON = {"model", "version", "backend"}


def families(text: str) -> dict[str, tuple[str, set[str]]]:
    """umo's families: their kind, and the labels beside the common ones."""
    found = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("umo_"):
            continue
        labels: set[str] = set()
        for sample in family.samples:
            assert set(sample.labels) >= COMMON, sample
            labels |= set(sample.labels) - COMMON
        found[family.name + ("_total" if family.type == "counter" else "")] = (family.type, labels)
    return found


def value(text: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_promtool_accepts_umo_s_families_without_a_word(scraped: str, promtool: str) -> None:
    own = "".join(line for line in scraped.splitlines(keepends=True) if re.match(r"(# \w+ )?umo_", line))
    done = subprocess.run([promtool, "check", "metrics"], input=own, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # What it says of the whole answer is of the server's own families.
    done = subprocess.run([promtool, "check", "metrics"], input=scraped, capture_output=True, text=True, timeout=30)
    assert all(line.startswith("nv_") for line in done.stderr.splitlines())


def test_promtool_would_have_said_something(promtool: str) -> None:
    bad = "# HELP umo_bad_count a counter\n# TYPE umo_bad_count counter\numo_bad_count 1\n"
    done = subprocess.run([promtool, "check", "metrics"], input=bad, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and "umo_bad_count" in done.stderr


def test_the_documentation_has_every_family_as_it_is(scraped: str) -> None:
    rows = re.findall(r"^\| `(umo_\w+)` \| (\w+) \| (.*?) ?\| .+ \|$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    said = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert said == families(scraped)
    assert len(rows) == len(said)


def test_umo_top_knows_every_family(scraped: str) -> None:
    assert set(families(scraped)) == FAMILIES


def test_the_figures_are_those_of_the_requests(scraped: str) -> None:
    size = served.COUNT * 4
    assert value(scraped, "umo_copy_bytes_total", model="off", reason="disabled", direction="out") == 5 * size
    assert value(scraped, "umo_copies_total", model="off", reason="disabled", direction="out") == 5
    assert value(scraped, "umo_copy_avoided_bytes_total", model="shared", direction="out") == 5 * size
    assert value(scraped, "umo_copies_avoided_total", model="shared", direction="out") == 5
    for direction in ("host_to_device", "device_to_host"):
        for model, outcome in (("kernel", "eliminated"), ("kernel_off", "performed")):
            found = {"model": model, "direction": direction, "outcome": outcome}
            assert value(scraped, "umo_transfer_bytes_total", **found) == 5 * size
            assert value(scraped, "umo_transfers_total", **found) == 5
    assert value(scraped, "umo_imports_total", model="kernel", cache="hit") == 4  # two of three over shared memory
    assert value(scraped, "umo_imports_total", model="kernel", cache="miss") == 6
    assert value(scraped, "umo_pool_blocks_total", model="off", memory="kept") == 4
    assert value(scraped, "umo_pool_blocks_total", model="off", memory="new") == 1
    assert value(scraped, "umo_allocated_bytes_total", model="off") >= size
    assert value(scraped, "umo_memory_limit_bytes", model="off", source="budget") == 1 << 30
    assert value(scraped, "umo_ready", model="off") == 1


def test_a_model_that_is_loaded_anew_keeps_its_series(server: TritonServer) -> None:
    before = served.scrape(server)
    server.load("off")
    served.infer(server, "off")
    after = served.scrape(server)
    for name, labels in (
        ("umo_copy_bytes_total", {"model": "off", "reason": "disabled"}),
        ("umo_copies_total", {"model": "off", "reason": "disabled"}),
        ("umo_ready", {"model": "off"}),
    ):
        more = {"umo_copy_bytes_total": served.COUNT * 4, "umo_copies_total": 1, "umo_ready": 0}[name]
        assert value(after, name, **labels) == value(before, name, **labels) + more


def test_a_model_that_is_unloaded_takes_its_series_with_it(server: TritonServer) -> None:
    server.unload("kernel_off")
    assert 'model="kernel_off"' not in "".join(
        line for line in served.scrape(server).splitlines() if line.startswith("umo_")
    )
    server.load("kernel_off")


@pytest.mark.slow
def test_memory_that_goes_back_while_a_model_rests_is_seen(server: TritonServer) -> None:
    served.infer(server, "off")
    held = value(served.scrape(server), "umo_live_bytes", model="off")
    assert held > 0
    # Its pool gives back what it keeps after some seconds of rest.
    end = time.monotonic() + 20
    while value(served.scrape(server), "umo_live_bytes", model="off") >= held:
        assert time.monotonic() < end
    after = served.scrape(server)
    assert value(after, "umo_pool_trimmed_bytes_total", model="off") > 0
    assert value(after, "umo_pool_bytes", model="off", state="idle") < held
