"""The dashboard: what build.py makes, in Grafana's form, of expressions that Prometheus reads and figures there are."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

import served  # noqa: E402

from umo.top.scrape import FAMILIES  # noqa: E402

FOLDER = served.ROOT / "ops" / "grafana"
TEXT = (FOLDER / "umo.json").read_text(encoding="utf-8")
MADE: dict[str, Any] = json.loads(TEXT)
PANELS = [panel for panel in MADE["panels"] if panel["type"] != "row"]
# What the variables are while Grafana runs.
VALUES = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$job": ".*",
    "$instance": "a|b",
    "$model": ".*",
    "${datasource}": "x",
}


def test_the_file_is_what_build_makes(tmp_path: Path) -> None:
    script = FOLDER / "build.py"
    assert subprocess.run([sys.executable, script, "--check"], timeout=60).returncode == 0
    copied = tmp_path / "build.py"
    copied.write_text(script.read_text())
    (tmp_path / "umo.json").write_text(TEXT.replace("Overview", "Other"))
    assert subprocess.run([sys.executable, copied, "--check"], timeout=60, stderr=subprocess.DEVNULL).returncode == 1


def problems(value: Any, hint: Any, where: str) -> list[str]:
    """Where a decoded value is not what its type in Grafana's SDK says."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object or isinstance(hint, (str, typing.ForwardRef)):
        return []
    if origin in (typing.Union, types.UnionType):
        found = [problems(value, choice, where) for choice in arguments]
        return [] if any(not each for each in found) else min(found, key=len)
    if origin is typing.Literal:
        return [] if value in arguments else [f"{where}: {value!r} is none of {arguments}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [each for place, item in enumerate(value) for each in problems(item, arguments[0], f"{where}[{place}]")]
    if origin is dict:
        return [] if isinstance(value, dict) else [f"{where}: {value!r} is no object"]
    if hint is float:
        return [] if isinstance(value, (int, float)) and not isinstance(value, bool) else [f"{where}: {value!r}"]
    if hint is int:
        return [] if isinstance(value, int) and not isinstance(value, bool) else [f"{where}: {value!r}"]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [] if value in [each.value for each in hint] else [f"{where}: {value!r} is no {hint.__name__}"]
    if isinstance(value, dict) and hasattr(hint, "from_json"):  # the SDK leaves some as they are
        value = hint.from_json(value)
    if not isinstance(hint, type) or not isinstance(value, hint):
        return [f"{where}: {value!r} is no {hint}"]
    if not hint.__module__.startswith("grafana_foundation_sdk"):
        return []
    hints = typing.get_type_hints(type(value), vars(importlib.import_module(type(value).__module__)))
    return [each for name, kind in hints.items() for each in problems(getattr(value, name), kind, f"{where}.{name}")]


def decoded(data: dict[str, Any]) -> Any:
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    return Dashboard.from_json(data)


def schema_problems(data: dict[str, Any]) -> list[str]:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    try:
        dashboard = decoded(data)
    except Exception as error:  # what the SDK's own reading makes of a wrong enumerator
        return [f"it is not read: {error!r}"]
    again = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    found = problems(dashboard, type(dashboard), "dashboard")
    # A field that Grafana does not have is not written again.
    return found if again == data else [*found, "it has a field that Grafana's form has not"]


def test_the_dashboard_is_in_grafana_s_form() -> None:
    assert schema_problems(MADE) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["title"], 5),
        (["graphTooltip"], 7),
        (["panels", 1, "gridPos", "w"], "wide"),
        (["panels", 1, "tilte"], "misspelt"),
        (["panels", 1, "fieldConfig", "defaults", "thresholds", "mode"], "sometimes"),
        (["templating", "list", 1, "multi"], "yes"),
        (["refresh"], True),
        (["tags"], "umo"),
    ],
)
def test_what_is_not_in_grafana_s_form_is_seen(path: list[Any], value: Any) -> None:
    data = json.loads(TEXT)
    at = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert schema_problems(data)


def test_panels_have_places_numbers_and_words_of_their_own() -> None:
    assert len({panel["id"] for panel in MADE["panels"]}) == len(MADE["panels"]) > 25
    taken = set()
    for panel in MADE["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells
    for panel in PANELS:
        assert len(panel["description"]) > 8 and panel["datasource"]["uid"] == "${datasource}"
    assert [row["title"] for row in MADE["panels"] if row["type"] == "row"] == [
        "Overview",
        "What still moves",
        "What was saved",
        "Memory and pools",
        "Placement and patterns",
        "Pressure",
    ]


def expressions() -> list[str]:
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    queries = [variable["query"] for variable in MADE["templating"]["list"] if variable["type"] == "query"]
    return found + [re.sub(r"^label_values\((.*), \w+\)$", r"\1", query) for query in queries]


def test_prometheus_reads_every_expression(promtool: str, tmp_path: Path) -> None:
    def check(texts: list[str]) -> subprocess.CompletedProcess[str]:
        rules = [{"record": f"x{number}", "expr": text} for number, text in enumerate(texts)]
        path = tmp_path / "rules.yml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
        return subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, timeout=60)

    texts = []
    for text in expressions():
        for name, value in VALUES.items():
            text = text.replace(name, value)
        assert "$" not in text, text
        texts.append(text)
    done = check(texts)
    assert done.returncode == 0, done.stderr
    assert f"{len(texts)} rules found" in done.stdout
    assert check([*texts, "sum by (model (x)"]).returncode != 0


def test_the_dashboard_shows_every_family_and_no_other() -> None:
    used = {name for text in expressions() for name in re.findall(r"(?<![:\w])umo_\w+", text)}
    assert used == FAMILIES  # which are the server's: test_metrics.py
