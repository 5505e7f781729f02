"""Drives a real Chromium over its debugging pipe: no driver program, no package, no port.

The browser runs headless with a folder of its own and resolves no name, so that whatever a page tries to fetch fails
and is seen. Commands are those of the DevTools protocol.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# The browser reads commands from descriptor 3 and answers on 4.
_BECOME = """
import os, sys
reads, writes = int(sys.argv[1]), int(sys.argv[2])
spare = os.dup2(reads, 20), os.dup2(writes, 21)
os.dup2(20, 3)
os.dup2(21, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--disable-breakpad", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def find() -> str | None:
    """UMO_CHROMIUM, else chromium on PATH."""
    return os.environ.get("UMO_CHROMIUM") or shutil.which("chromium")


class Chromium:
    """A browser with one page; use it as a context manager.

    requests   every URL that the page asked for, whether or not it was allowed to
    console    what was written there, and exceptions that nobody caught
    """

    def __init__(self, width: int = 1280, height: int = 900, timeout_s: float = 60) -> None:
        self._folder = tempfile.mkdtemp(prefix="umo-chromium-")
        self._size = (width, height)
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._rest = b""
        self._events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.console: list[str] = []

    def __enter__(self) -> Self:
        path = find()
        if path is None:
            raise FileNotFoundError("no chromium: run scripts/setup, or set UMO_CHROMIUM")
        reads, self._commands = os.pipe()
        self._answers, writes = os.pipe()
        command = [sys.executable, "-c", _BECOME, str(reads), str(writes), path, *_OPTIONS]
        command += [f"--user-data-dir={self._folder}", f"--window-size={self._size[0]},{self._size[1]}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(reads, writes), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, env=dict(os.environ, HOME=self._folder),
        )  # fmt: skip
        os.close(reads)
        os.close(writes)
        try:
            self._session = ""
            targets = self._targets()
            attached = self.call("Target.attachToTarget", targetId=targets, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            self.resize(*self._size)
        except BaseException:
            self.close()
            raise
        return self

    def _targets(self) -> str:
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            for target in self.call("Target.getTargets")["targetInfos"]:
                if target["type"] == "page":
                    return target["targetId"]
            time.sleep(0.05)
        raise TimeoutError("chromium made no page")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and all of its processes, and removes its folder."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- the protocol ----

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("chromium does not answer")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise RuntimeError("chromium ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, values = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(value.get("value", value.get("description"))) for value in values["args"]))
        elif method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.console.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
        self._events.append(event)

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """One command. Raises RuntimeError with the browser's words."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        deadline = time.monotonic() + self._timeout_s
        while True:
            answer = self._read(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    # ---- what a reader does ----

    def open(self, path: Path) -> None:
        """Opens a file and waits until its scripts have run (`data-ready` of the root element)."""
        self.requests.clear()
        self.console.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + self._timeout_s
        ready = f"location.href === {json.dumps(path.resolve().as_uri())} && document.documentElement?.dataset.ready"
        while self.value(ready) != "true":
            if time.monotonic() > deadline or self.console:
                raise TimeoutError(f"the page did not become ready: {self.console}")
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """What an expression gives in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def frames(self, count: int = 2) -> None:
        """Waits until so many frames have been drawn."""
        for _ in range(count):
            self.value("new Promise((done) => requestAnimationFrame(() => done(1)))")

    def resize(self, width: int, height: int, scale: float = 1, mobile: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def prefer(self, scheme: str) -> None:
        """What the system prefers: light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def key(self, key: str, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """mousePressed, mouseReleased, mouseMoved or mouseWheel."""
        button = {} if kind in ("mouseMoved", "mouseWheel") else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**button, **more})

    def screenshot(self, path: Path, whole: bool = False) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
