"""A report of a million events: how large it is, how long Chromium takes to open it, what a frame of zooming costs.

    python bench/report.py [--events 1000000] [--turns 5]

The recording is made up (python/tests/recordings.py), of eight models in 60 seconds. Opening is from the navigation
until the timeline is drawn and answers, by the page's own clock; each turn is a new navigation in one browser. The page
is checked before a time counts: its rows must be as many as the recording's events make. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python" / "tests")]

import numpy as np  # noqa: E402
import recordings  # noqa: E402
from chromium import Chromium  # noqa: E402

from umo import profile  # noqa: E402
from umo.report import Report  # noqa: E402

COMMAND = "make bench (bench/report.py)"
MOST_MS, MOST_BYTES = 3000, 10_000_000
# A view of 60, 10 and 1 % of the time, drawn again and again: the worst of their medians.
FRAME = """(() => {
    const view = umo.view, times = [];
    for (const share of [1, 0.6, 0.1, 0.01]) {
        view.set(0.3 * view.duration, (0.3 + share) * view.duration);
        const each = [];
        for (let i = 0; i < 9; i++) {
            const start = performance.now();
            view.listeners.forEach((draw) => draw());
            each.push(performance.now() - start);
        }
        times.push(each.sort((a, b) => a - b)[4]);
    }
    return times;
})()"""


def row(claim: str, value: float, unit: str, opponent: str, ratio: float, spread: list[float]) -> None:
    fields = {"claim": claim, "value": value, "unit": unit, "opponent": opponent, "ratio": ratio, "spread": spread}
    print(json.dumps({**fields, "command": COMMAND}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    recording = recordings.synthetic(options.events)
    events = len(recording)
    with tempfile.TemporaryDirectory() as folder, Chromium() as browser:
        page = Path(folder) / "report.html"
        start = time.process_time()
        size = Report(recording).write(page)
        made_s = time.process_time() - start
        times = []
        for _ in range(options.turns):
            browser.open(page)
            times.append(browser.value("performance.getEntriesByName('umo-ready')[0].startTime"))
        # A bracket's two events are one row.
        ended = int(np.count_nonzero(recording.events["kind"] == profile.KINDS.index("access_end")))
        read = browser.value("umo.recording.combination.length")
        if browser.console or read != events - ended or browser.value("umo.recording.rows") != read:
            raise SystemExit(f"the page is not right: {read} rows, {browser.console}")
        frames = browser.value(FRAME)
    middle = statistics.median(times)
    limit = f"at most {MOST_MS} ms asked, {events:,} events"
    row(
        "report_open_ms", round(middle), "ms", limit, round(middle / MOST_MS, 3), [round(min(times)), round(max(times))]
    )
    row("report_bytes", size, "bytes", f"at most {MOST_BYTES:,} asked", round(size / MOST_BYTES, 3), [size, size])
    spread = [round(min(frames), 1), round(max(frames), 1)]
    row(
        "report_frame_ms",
        round(max(frames), 1),
        "ms",
        "60 frames a second: 16.7 ms",
        round(max(frames) / 16.7, 2),
        spread,
    )
    row("report_make_s", round(made_s, 2), "s", "none; processor time of one core", 1.0, [round(made_s, 2)] * 2)


if __name__ == "__main__":
    main()
