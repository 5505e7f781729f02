"""The line of `umo serve` that says how the server is, below what the server itself says.

On a terminal the server's lines come through here, so that the two do not write over each other; elsewhere there is no
such line, and the server writes to the output that it inherits.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.live import Live as RichLive

    from ..server import Metrics, TritonServer

_LOOK_S = 1.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ready_of(server: TritonServer) -> str:
    """ "" when it is ready, else why not."""
    connection = http.client.HTTPConnection(*server.http_url.rsplit(":", 1), timeout=_LOOK_S)  # type: ignore[arg-type]
    try:
        connection.request("GET", "/v2/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer ({type(error).__name__})"
    finally:
        connection.close()
    return "" if status == 200 else "alive, and refuses new work"


def rates(before: Metrics, now: Metrics, seconds: float) -> str:
    """Requests a second, failures, and what was not copied."""
    moved = now.since(before)
    done = moved.value("nv_inference_request_success")
    failed = moved.value("nv_inference_request_failure")
    said = f"{done / seconds:,.0f} requests/s"
    if failed:
        said += f", {failed / seconds:,.0f} failed/s"
    avoided, copied = now.value("umo_copy_avoided_bytes_total"), now.value("umo_copy_bytes_total")
    if avoided + copied > 0:
        said += f"  |  {100 * avoided / (avoided + copied):.0f} % of all bytes used in place"
    return said


class Live:
    """Use it as a context manager around the server's life.

    wanted   false: never show a line
    """

    def __init__(self, wanted: bool = True) -> None:
        self.console = Console(stderr=True)
        dull = os.environ.get("TERM", "dumb") == "dumb"
        self._shown = wanted and self.console.is_terminal and not dull
        self._started = time.monotonic()
        self._state, self._figures = "loading", ""
        self._ending = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: RichLive | None = None
        # Without a line there is nothing to protect, and the server writes by itself.
        self.relay = self._relay if self._shown else None

    def __rich__(self) -> Text:
        state = "ending; Ctrl-C again ends it at once" if self._ending else self._state
        style = {"loading": "yellow", "ready": "green"}.get(state, "bold red")
        line = Text.assemble(("umo: ", "dim"), (state, style), f"  {_clock(time.monotonic() - self._started)}")
        if self._figures and not self._ending:
            line.append(f"  |  {self._figures}")
        line.truncate(max(20, self.console.width - 1), overflow="ellipsis")
        return line

    def __enter__(self) -> Self:
        if self._shown:
            from rich.live import Live as RichLive

            self._live = RichLive(
                self, console=self.console, transient=True, refresh_per_second=2,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line of umo's own."""
        if self._live is not None:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr)

    def _relay(self, line: bytes) -> None:
        self.console.print(Text(line.decode(errors="replace").rstrip("\n")), soft_wrap=True, highlight=False)

    def ending(self) -> None:
        """From a signal's handler: nothing that takes a lock."""
        self._ending = True
        if self._live is None:
            with contextlib.suppress(OSError):
                os.write(2, b"umo: ending; the same signal again ends it at once\n")

    def watch(self, server: TritonServer) -> None:
        """The server is ready: from now on its health and its figures are shown."""
        self._state, self._started = "ready", time.monotonic()
        if self._live is not None:
            self._thread = threading.Thread(target=self._look, args=(server,), name="umo-health", daemon=True)
            self._thread.start()

    def _look(self, server: TritonServer) -> None:
        before, taken = None, time.monotonic()
        while not self._over.wait(_LOOK_S):
            trouble = ready_of(server)
            self._state = f"NOT READY: {trouble}" if trouble else "ready"
            try:
                metrics, now = server.metrics(), time.monotonic()
            except Exception:  # noqa: BLE001  whatever it says there: without figures the line is shorter
                self._figures, before = "", None
                continue
            if before is not None:
                self._figures = rates(before, metrics, now - taken)
            before, taken = metrics, now
