"""The screen of umo top, driven by keys; what is on it is read from its own picture."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

sys.path.insert(0, str(Path(__file__).resolve().parent))

from top_rig import MIB, Script, model, process, reading, text_of, three  # noqa: E402

from umo.top import app as screen  # noqa: E402
from umo.top.app import Top  # noqa: E402
from umo.top.source import Buffer, Reading, SourceError  # noqa: E402

Steps = Callable[[Pilot[None], Top], Awaitable[None]]


async def tick(app: Top, count: int = 1) -> None:
    """Has a reading taken and drawn, now."""
    for _ in range(count):
        before = app._source.reads  # type: ignore[attr-defined]
        app._tick()
        while app._reading or app._source.reads == before:  # type: ignore[attr-defined]
            await asyncio.sleep(0.002)


def drive(
    source: Script, steps: Steps, size: tuple[int, int] = (80, 24), ticks: int = 1, interval_s: float = 600
) -> None:
    """Runs the screen over so many readings beside the first one, which it takes by itself, and then the steps."""
    app = Top(source, interval_s)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await tick(app, ticks)
            await steps(pilot, app)

    asyncio.run(run())


async def until(pilot: Pilot[None], app: Top, text: str, absent: bool = False) -> list[str]:
    """Waits for a text on the screen; gives its lines."""
    lines: list[str] = []
    end = time.monotonic() + 20
    while time.monotonic() < end:
        await asyncio.sleep(0.01)
        lines = text_of(app)
        if any(text in line for line in lines) != absent:
            return lines
    raise AssertionError(f"{text!r} is {'still' if absent else 'not'} on the screen:\n" + "\n".join(lines))


def line_of(lines: list[str], text: str) -> str:
    return next(line for line in lines if line.startswith(text))


def working(count: int = 60) -> Script:
    return Script(*[three(2.0 * i) for i in range(count)])


def test_the_screen_at_80_columns() -> None:
    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        lines = await until(pilot, app, "q quit")
        assert all(len(line) <= 80 for line in lines)
        assert lines[0].startswith(" umo top  http://server:8002/metrics") and "every 600 s" in lines[0]
        assert lines[1].startswith("ready; pressure none; memory 3.0G of 4.0G (75%, cgroup)")
        assert lines[2].startswith("saved 810M/s (96%), moved 30M/s, live 1.5G")
        assert lines[3] == "model                    moved/s▼  saved/s  saved  moved: trend    live  moves/s"
        bert, idle, resnet = lines[4:7]
        assert bert.startswith("bert                          30M      10M    25%") and bert.endswith("512M       10")
        assert idle.startswith("idle                            0        0      -") and idle.endswith("1.0M        0")
        assert resnet.startswith("resnet                          0     800M   100%") and resnet.endswith(
            "1.0G        0"
        )
        assert "quit" in lines[-1] and "filter" in lines[-1] and "help" in lines[-1] and "reasons" in lines[-1]

    drive(working(), steps)


@pytest.mark.parametrize("size", [(20, 6), (40, 10), (200, 50)])
def test_any_size_is_drawn_and_may_change(size: tuple[int, int]) -> None:
    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "bert")
        assert all(len(line) <= size[0] for line in text_of(app))
        await pilot.resize_terminal(80, 24)
        lines = await until(pilot, app, "live  moves/s")
        assert all(len(line) <= 80 for line in lines)
        await pilot.resize_terminal(200, 24)
        lines = await until(pilot, app, "refused/s")
        assert "streaming" in line_of(lines, "bert") and "unified" in line_of(lines, "bert")

    drive(working(), steps, size)


def test_keys_order_the_models() -> None:
    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        assert names(text_of(app)) == ["bert", "idle", "resnet"]
        await pilot.press("s")
        assert names(await until(pilot, app, "saved/s▼")) == ["resnet", "bert", "idle"]
        await pilot.press("r")
        assert names(await until(pilot, app, "saved/s▲")) == ["idle", "bert", "resnet"]
        await pilot.press("S", "S")
        assert names(await until(pilot, app, "model▲")) == ["resnet", "idle", "bert"]

    def names(lines: list[str]) -> list[str]:
        start = next(place for place, line in enumerate(lines) if line.startswith("model"))
        return [line.split()[0] for line in lines[start + 1 : start + 4]]

    drive(working(), steps)


def test_the_cursor_stays_on_its_model_when_the_order_changes() -> None:
    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        await pilot.press("down", "down", "s")
        await until(pilot, app, "saved/s▼")
        await pilot.press("enter")
        await until(pilot, app, " resnet 1")

    drive(working(), steps)


def test_a_filter_leaves_what_it_names() -> None:
    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        await pilot.press("slash", *"RES")
        lines = await until(pilot, app, "bert", absent=True)
        assert any(line.startswith("resnet") for line in lines)
        await pilot.press("enter")
        await until(pilot, app, "only models with 'RES'")
        await pilot.press("escape")
        await until(pilot, app, "bert")

    drive(working(), steps)


def test_pause_stops_reading_and_goes_on() -> None:
    source = working()

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        await pilot.press("p")
        await until(pilot, app, "PAUSED")
        await asyncio.sleep(0.1)
        reads = source.reads
        await asyncio.sleep(0.3)
        assert source.reads == reads
        await pilot.press("space")
        await until(pilot, app, "PAUSED", absent=True)
        for _ in range(500):
            await asyncio.sleep(0.02)
            if source.reads > reads:
                return
        raise AssertionError("it does not go on")

    drive(source, steps, interval_s=0.05)


def test_readings_come_more_seldom_and_more_often() -> None:
    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        await pilot.press("minus")
        await until(pilot, app, "every 300 s")
        await pilot.press("plus", "plus")
        await until(pilot, app, "every 600 s")  # the most there is
        app._interval_s = 0.15
        await pilot.press("p", "minus")
        await until(pilot, app, "every 0.1 s")  # the least

    drive(working(), steps)


def test_a_model_s_reasons_come_with_their_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"control_data": ("it may steer", "trust them"), "limit": ("a limit was reached", "raise it")}
    monkeypatch.setattr(screen, "advice", lambda: words)

    def step(seconds: float) -> Reading:
        made = three(seconds)
        bert = next(iter(made.models.values()))
        bert.counters["copied", "limit", "out"] = MIB * seconds
        return made

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "31M")
        await pilot.press("enter")
        lines = await until(pilot, app, "What to do: trust them.")
        assert lines[0].startswith(" bert 1")
        # 30 of 41 MiB/s, which were copied or saved
        assert line_of(lines, "control_data ").split()[1:4] == ["in", "30M", "10"]
        assert line_of(lines, "control_data ").endswith("73%")
        assert line_of(lines, "limit").split()[1:3] == ["out", "1.0M"]
        assert any(line.startswith("control_data: it may steer.") for line in lines)
        assert any(line.startswith("pools: 256M in use, 128M kept") for line in lines)
        assert any(line.startswith("patterns: streaming 256M, unknown 128M") for line in lines)
        await pilot.press("down")
        await until(pilot, app, "What to do: raise it.")
        await tick(app, 2)  # readings do not move the cursor
        await until(pilot, app, "What to do: raise it.")
        await pilot.press("escape")
        await until(pilot, app, "moved/s▼")

    drive(Script(*[step(2.0 * i) for i in range(200)]), steps)


def test_the_library_s_own_words_are_the_advice() -> None:
    words = screen.advice()
    cause, remedy = words["control_data"]
    assert "steer control flow" in cause and "trusted_clients" in remedy


def test_without_the_library_the_advice_is_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "advice", dict)

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        await pilot.press("enter")
        await until(pilot, app, "control_data: docs/reasons.md says")

    drive(working(), steps)


def test_a_model_that_goes_while_it_is_looked_at() -> None:
    source = working(2)
    source.readings.append(reading(100, resnet=model(100)))

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        await pilot.press("enter")
        await until(pilot, app, " bert 1")
        await tick(app)
        await until(pilot, app, "does not have this model any more")
        await pilot.press("escape")
        lines = await until(pilot, app, "resnet")
        assert not any(line.startswith("bert") for line in lines)

    drive(source, steps)


def test_a_server_that_does_not_answer_leaves_old_figures_and_is_asked_again() -> None:
    lost = SourceError("http://server:8002/metrics: connection refused")
    source = Script(three(0), three(2), lost, three(4))

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await tick(app)
        lines = await until(pilot, app, "connection refused")
        assert line_of(lines, "OLD by 0 s: http://server")
        assert line_of(lines, "bert").split()[1] == "30M"
        await tick(app)
        await until(pilot, app, "OLD by", absent=True)

    drive(source, steps)


def test_a_server_that_was_started_anew_is_said_to_be() -> None:
    source = Script(three(100), three(102), reading(104, bert=model(1)))

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "counters started over 1 x")

    drive(source, steps, ticks=2)


def test_a_server_without_models_of_umo_s() -> None:
    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "no model of umo's backends is loaded there")
        await pilot.press("enter", "s", "r")
        await until(pilot, app, "no model of umo's")

    drive(Script(Reading(0.0), Reading(1.0)), steps)


def test_a_slow_answer_does_not_stop_the_keys() -> None:
    class Slow(Script):
        gone = threading.Event()

        def read(self) -> Reading:
            if self.reads >= 2:
                self.gone.wait(20)
            return super().read()

    source = Slow(*[three(2.0 * i) for i in range(9)])

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "30M")
        app._tick()
        await pilot.press("question_mark")
        lines = await until(pilot, app, "its reasons, each with its advice")
        assert any("order by the next figure" in line for line in lines)
        await pilot.press("escape")
        await until(pilot, app, "order by the next figure", absent=True)
        assert app._reading and not source.gone.is_set()
        source.gone.set()

    drive(source, steps)


def test_pressure_is_seen() -> None:
    def step(seconds: float) -> Reading:
        made = three(seconds)
        made.process = process(level=3, ready=0)
        return made

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "NOT READY: requests are refused; pressure critical")

    drive(Script(step(0), step(1)), steps)


def test_names_are_never_markup_or_commands() -> None:
    nasty = "[bold]x[/bold] [@click=app.quit]y[/]"
    source = Script(*[reading(2.0 * i, **{nasty: model(2.0 * i, copied=MIB, reason="[red]r")}) for i in range(60)])

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "1.0M")
        assert any(line.startswith("[bold]x[/bold]") for line in text_of(app))
        await pilot.press("enter")
        await until(pilot, app, nasty)
        await until(pilot, app, "[red]r")

    drive(source, steps, (100, 24))


def test_buffers_are_shown_where_a_source_knows_them() -> None:
    def step(seconds: float) -> Reading:
        buffers = {
            7: Buffer("bert", 1 << 20, "unified", "streaming", {("copied", "limit", "in"): MIB * seconds}),
            8: Buffer("bert", 4096, "private", "gpu_dominant", {("avoided", "in"): 10 * MIB * seconds}, "1"),
            9: Buffer("resnet", 1 << 30, "unified", "", {}),
        }
        return reading(seconds, buffers, bert=model(seconds, copied=MIB), resnet=model(seconds))

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "1.0M")
        await pilot.press("enter")
        lines = await until(pilot, app, "buffer ")
        at = next(place for place, line in enumerate(lines) if line.startswith("buffer "))
        assert lines[at + 1].split() == ["7", "1.0M", "1.0M", "0", "unified", "-", "streaming"]
        assert lines[at + 2].split() == ["8", "4.0K", "0", "10M", "private", "1", "gpu_dominant"]
        assert not any(line.startswith("9 ") for line in lines)

    drive(Script(*[step(2.0 * i) for i in range(60)]), steps, (80, 40))


def test_a_thousand_models_are_drawn_in_time() -> None:
    made = {f"model{i:04}": i for i in range(1500)}
    source = Script(
        *[reading(2.0 * t, **{name: model(2.0 * t, copied=i) for name, i in made.items()}) for t in range(3)]
    )

    async def steps(pilot: Pilot[None], app: Top) -> None:
        await until(pilot, app, "model1499")
        await until(pilot, app, "the first 200 of 1500 models")
        start = time.monotonic()
        app._draw()
        assert time.monotonic() - start < 2.0
        await pilot.press("slash", *"0007")
        await until(pilot, app, "model0007")

    drive(source, steps)
