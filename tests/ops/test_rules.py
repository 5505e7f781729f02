"""The rules for Prometheus: right by promtool, tested each, and with a place in the documentation."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

import served  # noqa: E402

from umo.top.scrape import FAMILIES  # noqa: E402

FOLDER = served.ROOT / "ops" / "prometheus"
RULES = FOLDER / "umo.rules.yml"
TESTS = sorted(FOLDER.glob("*_test.yml"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule["alert"] for rule in rules() if "alert" in rule]


def anchors(page: Path) -> set[str]:
    """Those that GitHub and Sphinx give the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def run(promtool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_the_rules_are_right(promtool: str) -> None:
    done = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.parametrize("path", TESTS, ids=[path.stem for path in TESTS])
def test_every_alert_fires_when_it_should(path: Path, promtool: str) -> None:
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_that_never_fire_would_be_seen(promtool: str, tmp_path: Path) -> None:
    groups = copy.deepcopy(yaml.safe_load(RULES.read_text()))
    for group in groups["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = f"({rule['expr']}) and on () vector(0) > 1"
    (tmp_path / RULES.name).write_text(yaml.safe_dump(groups))
    missed: set[str] = set()
    for path in TESTS:
        (tmp_path / path.name).write_text(path.read_text())
        done = run(promtool, "test", "rules", tmp_path / path.name)
        assert done.returncode != 0
        missed |= set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert missed == set(ALERTS)


def test_every_alert_says_what_to_do() -> None:
    known = anchors(served.ROOT / "docs" / "monitoring.md")
    assert len(ALERTS) == len(set(ALERTS)) >= 7
    for rule in rules():
        if "alert" not in rule:
            continue
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert len(rule["annotations"]["summary"]) > 20 and len(rule["annotations"]["description"]) > 40
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/monitoring.md" and anchor == rule["alert"].lower() and anchor in known


def test_rules_use_what_there_is() -> None:
    records = {rule["record"] for rule in rules() if "record" in rule}
    text = "\n".join(rule["expr"] for rule in rules())
    used = set(re.findall(r"(?<![:\w])umo_\w+", text))
    assert used <= FAMILIES
    assert set(re.findall(r"\w+:umo_\w+:\w+", text)) <= records
    page = (served.ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+:umo_\w+:\w+)`", page)) == records
