"""Makes umo.json, the Grafana dashboard for umo's metrics, from what is below.

    python ops/grafana/build.py           writes ops/grafana/umo.json
    python ops/grafana/build.py --check   ends with 1 when the file is not what this makes

Grafana's own types are the form (PyPI: grafana-foundation-sdk), so that a field that Grafana does not have cannot be
written here. Figures of the process stand under every model on /metrics and are brought together by max.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.builders import prometheus as query
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as forms
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).resolve().parent / "umo.json"
DOCS = "docs/monitoring.md"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
# What every expression is cut down to.
OF = 'job=~"$job", instance=~"$instance"'
MINE = OF + ', model=~"$model"'
RATE = "$__rate_interval"


def rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{MINE}{more}}}[{RATE}]))"


def total(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) ({metric}{{{MINE}{more}}})"


def process(metric: str, by: str = "instance") -> str:
    return f"max by ({by}) ({metric}{{{OF}}})"


def process_rate(metric: str, by: str) -> str:
    return f"max by ({by}) (rate({metric}{{{OF}}}[{RATE}]))"


def target(expression: str, legend: str, letter: str) -> query.Dataquery:
    return query.Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE)


def graph(
    title: str,
    description: str,
    unit: str,
    *series: tuple[str, str],
    stacked: bool = False,
    width: int = 12,
    most: float | None = None,
) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .height(8)
        .span(width)
        .fill_opacity(25 if stacked else 8)
        .show_points(forms.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(forms.LegendDisplayMode.TABLE)
            .placement(forms.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(forms.TooltipDisplayMode.MULTI).sort(forms.SortOrder.DESCENDING))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(forms.StackingMode.NORMAL))
    if most is not None:
        panel.max(most)
    for number, (expression, legend) in enumerate(series):
        panel.with_target(target(expression, legend, chr(ord("A") + number)))
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    expression: str,
    steps: tuple[tuple[float | None, str], ...],
    width: int = 4,
) -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .height(4)
        .span(width)
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(model.ThresholdsMode.ABSOLUTE)
            .steps([model.Threshold(value=value, color=color) for value, color in steps])
        )
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(forms.BigValueColorMode.VALUE)
        .graph_mode(forms.BigValueGraphMode.AREA)
        .with_target(target(expression, "", "A"))
    )


MOVED = f"({rate('umo_copy_bytes_total', 'model')} or 0 * {rate('umo_copy_avoided_bytes_total', 'model')})"
CROSSED = rate("umo_transfer_bytes_total", "model", ', outcome="performed"')
SAVED = rate("umo_copy_avoided_bytes_total", "model")
SPARED = rate("umo_transfer_bytes_total", "model", ', outcome="eliminated"')
SHARE = f"sum({SAVED} + {SPARED}) / (sum({SAVED} + {SPARED} + {MOVED} + {CROSSED}) > 0)"

GREEN_UP = ((None, "red"), (0.5, "orange"), (0.9, "green"))
GREEN_DOWN = ((None, "green"), (0.8, "orange"), (0.93, "red"))


def overview() -> list[Any]:
    return [
        figure(
            "Moves that were saved",
            "Share of the bytes of the models' tensors that were neither copied nor transferred.",
            "percentunit",
            SHARE,
            GREEN_UP,
        ),
        figure(
            "Saved",
            "Bytes a second that the conventional way moves and umo did not.",
            "binBps",
            f"sum({SAVED} + {SPARED})",
            ((None, "blue"),),
        ),
        figure(
            "Still moved",
            "Bytes a second that were copied or transferred.",
            "binBps",
            f"sum({MOVED} + {CROSSED})",
            ((None, "blue"),),
        ),
        figure(
            "Nearest limit",
            "Memory in use against the limit that is nearest: with the default threshold umo begins to give back at "
            "80 % and refuses work at 93 %.",
            "percentunit",
            f"max({process('umo_memory_usage_bytes', 'instance, source')} / "
            f"{process('umo_memory_limit_bytes', 'instance, source')})",
            GREEN_DOWN,
        ),
        figure(
            "Not ready",
            "Servers that refuse all work because memory is short.",
            "short",
            f"sum(1 - min by (instance) (umo_ready{{{OF}}}))",
            ((None, "green"), (1, "red")),
        ),
        figure(
            "Refused",
            "Requests a second that were answered with UNAVAILABLE because memory was short.",
            "reqps",
            f"sum(rate(umo_requests_refused_total{{{MINE}}}[{RATE}]))",
            ((None, "green"), (0.001, "red")),
        ),
    ]


def still_moves() -> list[Any]:
    advice = (
        table.Panel()
        .title("What to do about it")
        .description("Bytes copied in the chosen time, the most first. `umo explain REASON` says what to do.")
        .datasource(SOURCE)
        .unit("bytes")
        .height(8)
        .span(12)
        .show_header(True)
        .with_target(
            query.Dataquery()
            .expr(
                f"sort_desc(sum by (model, reason, direction) (increase(umo_copy_bytes_total{{{MINE}}}[$__range])) > 0)"
            )
            .instant()
            .format(PromQueryFormat.TABLE)
            .ref_id("A")
            .datasource(SOURCE)
        )
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "renameByName": {"Value": "copied"},
                    "indexByName": {"model": 0, "reason": 1, "direction": 2, "Value": 3},
                },
            )
        )
    )
    return [
        graph(
            "Copied, by reason",
            "Bytes copied within host memory. Each reason has a remedy: docs/reasons.md.",
            "binBps",
            (rate("umo_copy_bytes_total", "reason"), "{{reason}}"),
            stacked=True,
        ),
        advice,
        graph(
            "Copied, by model",
            "Bytes copied within host memory, into and out of each model.",
            "binBps",
            (rate("umo_copy_bytes_total", "model, direction"), "{{model}} {{direction}}"),
            stacked=True,
        ),
        graph(
            "Between host and device",
            "Bytes that were really moved between two memories.",
            "binBps",
            (
                rate("umo_transfer_bytes_total", "model, direction", ', outcome="performed"'),
                "{{model}} {{direction}}",
            ),
            stacked=True,
        ),
        graph(
            "Copies, transfers and moves",
            "How often bytes were moved: many short ones cost as much as few long ones.",
            "ops",
            (rate("umo_copies_total", "model"), "{{model}} copies"),
            (rate("umo_transfers_total", "model", ', outcome="performed"'), "{{model}} transfers"),
            (rate("umo_moves_total", "model"), "{{model}} moves"),
        ),
        graph(
            "Moved to another storage mode",
            "Bytes of buffers that changed where they live. A steady stream of them is a pattern that changes.",
            "binBps",
            (rate("umo_moved_bytes_total", "model"), "{{model}}"),
        ),
    ]


def saved() -> list[Any]:
    return [
        graph(
            "Saved",
            "Bytes that the conventional way copies or transfers, and umo did not.",
            "binBps",
            (SAVED, "{{model}} copies"),
            (SPARED, "{{model}} transfers"),
            stacked=True,
        ),
        graph(
            "Moves that were saved, by model",
            "1: nothing of the model's tensors is moved. 0: everything is, as without umo.",
            "percentunit",
            (f"({SAVED} + {SPARED}) / ({SAVED} + {SPARED} + {MOVED} + {CROSSED} > 0)", "{{model}}"),
            most=1,
        ),
        graph(
            "Copies and transfers that were saved",
            "How often.",
            "ops",
            (rate("umo_copies_avoided_total", "model"), "{{model}} copies"),
            (rate("umo_transfers_total", "model", ', outcome="eliminated"'), "{{model}} transfers"),
        ),
        graph(
            "Memory used where it lies",
            "Uses of clients' memory by a device: bound anew (miss), or found in the registration cache (hit); and how "
            "often something made room there for others.",
            "ops",
            (rate("umo_imports_total", "model, cache"), "{{model}} {{cache}}"),
            (process_rate("umo_cache_evictions_total", "instance"), "{{instance}} evicted"),
        ),
        graph(
            "Bytes used where they lie",
            "The same in bytes.",
            "binBps",
            (rate("umo_import_bytes_total", "model, cache"), "{{model}} {{cache}}"),
        ),
        graph(
            "Registration cache",
            "Views of clients' shared memory and bound ranges that are kept.",
            "short",
            (process("umo_cache_entries", "instance, kind"), "{{instance}} {{kind}}"),
        ),
    ]


def memory() -> list[Any]:
    return [
        graph(
            "Memory held, by model",
            "Live bytes, pools included, and the most there ever was.",
            "bytes",
            (total("umo_live_bytes", "model"), "{{model}}"),
            (total("umo_peak_bytes", "model"), "{{model}} peak"),
        ),
        graph(
            "Pools",
            "In use, kept for reuse, lost to rounding. What is kept goes back when a model rests.",
            "bytes",
            (total("umo_pool_bytes", "state"), "{{state}}"),
            stacked=True,
        ),
        graph(
            "Blocks from pools",
            "Blocks that reused kept memory, and those that needed new memory; all takings of new memory.",
            "ops",
            (rate("umo_pool_blocks_total", "model, memory"), "{{model}} {{memory}}"),
            (rate("umo_allocations_total", "model"), "{{model}} allocations"),
        ),
        graph(
            "Given back, taken anew",
            "Both at once, steadily: pools keep too little.",
            "binBps",
            (rate("umo_pool_trimmed_bytes_total", "model"), "{{model}} given back"),
            (rate("umo_allocated_bytes_total", "model"), "{{model}} taken"),
        ),
        graph(
            "Buffers",
            "Buffers that exist.",
            "short",
            (total("umo_live_buffers", "model"), "{{model}}"),
        ),
        graph(
            "Views of clients' memory",
            "Address space in views of shared memory; the memory is the clients'.",
            "bytes",
            (process("umo_cache_view_bytes"), "{{instance}}"),
        ),
    ]


def placement() -> list[Any]:
    return [
        graph(
            "Placement",
            "Where the models' recorded buffers live.",
            "bytes",
            (total("umo_placement_bytes", "mode"), "{{mode}}"),
            stacked=True,
        ),
        graph(
            "Patterns",
            "How the models' recorded buffers are used.",
            "bytes",
            (total("umo_pattern_bytes", "pattern"), "{{pattern}}"),
            stacked=True,
        ),
        graph(
            "Nodes",
            "On machines with several nodes: scratch memory that executions took, on their thread's node (local) or on "
            "another one (remote).",
            "binBps",
            (rate("umo_numa_scratch_bytes_total", "model, where"), "{{model}} {{where}}"),
            stacked=True,
        ),
        graph(
            "Moves between nodes",
            "How often scratch memory went to another node, after its thread.",
            "ops",
            (rate("umo_numa_moves_total", "model"), "{{model}}"),
        ),
    ]


def pressure() -> list[Any]:
    return [
        graph(
            "Memory against its limits",
            "In use, as a part of the limit, by who limits it.",
            "percentunit",
            (
                f"{process('umo_memory_usage_bytes', 'instance, source')} / "
                f"{process('umo_memory_limit_bytes', 'instance, source')}",
                "{{instance}} {{source}}",
            ),
            most=1,
        ),
        graph(
            "Level and readiness",
            "0 none, 1 low, 2 medium, 3 critical; and 1 for servers that refuse all work.",
            "short",
            (process("umo_pressure_level"), "{{instance}} level"),
            (f"1 - min by (instance) (umo_ready{{{OF}}})", "{{instance}} not ready"),
            most=3,
        ),
        graph(
            "Answers",
            "What was done about pressure: trim, tighten, relieve, refuse, in this order.",
            "ops",
            (process_rate("umo_pressure_answers_total", "instance, answer"), "{{instance}} {{answer}}"),
        ),
        graph(
            "Requests refused",
            "Answered with UNAVAILABLE because memory was short.",
            "reqps",
            (rate("umo_requests_refused_total", "model"), "{{model}}"),
            stacked=True,
        ),
    ]


ROWS = (
    ("Overview", overview),
    ("What still moves", still_moves),
    ("What was saved", saved),
    ("Memory and pools", memory),
    ("Placement and patterns", placement),
    ("Pressure", pressure),
)


def choice(name: str, label: str, of: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(of)
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def build() -> model.Dashboard:
    made = (
        dashboard.Dashboard("umo: where the bytes go")
        .uid("umo-bytes")
        .description(f"Unified memory for Triton Inference Server: what moves, what was saved, and memory. See {DOCS}.")
        .tags(["umo", "triton"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(choice("job", "Job", "label_values(umo_live_bytes, job)"))
        .with_variable(choice("instance", "Server", 'label_values(umo_live_bytes{job=~"$job"}, instance)'))
        .with_variable(choice("model", "Model", f"label_values(umo_live_bytes{{{OF}}}, model)"))
    )
    number = 0
    for title, panels in ROWS:
        made.with_row(dashboard.Row(title).id(number := number + 1))
        for panel in panels():
            made.with_panel(panel.id(number := number + 1))
    return made.build()


def text() -> str:
    return json.dumps(build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        current = FILE.is_file() and FILE.read_text(encoding="utf-8") == text()
        if not current:
            print(f"{FILE.name} is not what build.py makes; run it without --check", file=sys.stderr)
        return 0 if current else 1
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
