"""A server's /metrics as a source.

The answer comes from elsewhere: it is read up to a bound and a deadline, and taken for Prometheus text only if all of
umo's lines are. Lines of others are not parsed, since a server has thousands of them.

The deadline is kept by waiting for a thread: nothing else bounds the search for a host's name, or an answer that comes
byte by byte. A thread that was given up is let run out, and there is never a second one.
"""

from __future__ import annotations

import io
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException

from .source import ModelKey, Reading, SourceError, printable

DEFAULT_URL = "http://127.0.0.1:8002/metrics"
MOST_BYTES = 32 << 20
MOST_MODELS = 10_000
_CHUNK = 1 << 16
_MOST = 1e300  # sums of such are numbers still; none of umo's figures is below 0, or none at all

# umo's families: the key that they have in a Reading, and the labels that go into it.
_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "umo_copy_bytes_total": ("copied", ("reason", "direction")),
    "umo_copies_total": ("copies", ("reason", "direction")),
    "umo_transfer_bytes_total": ("crossed", ("direction", "outcome")),
    "umo_transfers_total": ("crossings", ("direction", "outcome")),
    "umo_copy_avoided_bytes_total": ("avoided", ("direction",)),
    "umo_copies_avoided_total": ("avoids", ("direction",)),
    "umo_import_bytes_total": ("bound", ("cache",)),
    "umo_imports_total": ("bindings", ("cache",)),
    "umo_allocated_bytes_total": ("allocated", ()),
    "umo_allocations_total": ("allocations", ()),
    "umo_moved_bytes_total": ("moved", ()),
    "umo_moves_total": ("moves", ()),
    "umo_pool_blocks_total": ("blocks", ("memory",)),
    "umo_pool_trimmed_bytes_total": ("trimmed", ()),
    "umo_numa_scratch_bytes_total": ("scratch", ("where",)),
    "umo_numa_moves_total": ("followed", ()),
    "umo_requests_refused_total": ("refused", ()),
}
_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "umo_live_bytes": ("live", ()),
    "umo_peak_bytes": ("peak", ()),
    "umo_live_buffers": ("buffers", ()),
    "umo_pool_bytes": ("pool", ("state",)),
    "umo_placement_bytes": ("mode", ("mode",)),
    "umo_pattern_bytes": ("pattern", ("pattern",)),
}
# Of the process, though they stand under each model: the greatest is the newest.
_PROCESS_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "umo_pressure_answers_total": ("answers", ("answer",)),
    "umo_cache_evictions_total": ("evictions", ()),
}
_PROCESS_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "umo_pressure_level": ("level", ()),
    "umo_ready": ("ready", ()),
    "umo_memory_usage_bytes": ("usage", ("source",)),
    "umo_memory_limit_bytes": ("limit", ("source",)),
    "umo_cache_entries": ("entries", ("kind",)),
    "umo_cache_view_bytes": ("views", ()),
}
FAMILIES = frozenset({*_COUNTERS, *_GAUGES, *_PROCESS_COUNTERS, *_PROCESS_GAUGES})


def url_of(target: str) -> str:
    """A target as a user writes it: host:8002, http://host:8002 or all of it. Raises ValueError."""
    url = target if "://" in target else f"http://{target}"
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{target!r} is neither http:// nor https://")
    if not parts.hostname or any(c.isspace() for c in url):
        raise ValueError(f"{target!r} names no host; write http://HOST:8002/metrics")
    if parts.port is not None and not 0 < parts.port < 65536:  # .port itself raises for other text
        raise ValueError(f"{target!r} names no port")
    return urllib.parse.urlunsplit(parts._replace(path=parts.path if parts.path not in ("", "/") else "/metrics"))


def _reason(error: BaseException) -> str:
    """What went wrong, without Python's way of saying it."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _samples(text: str, openmetrics: bool) -> Iterator[tuple[str, dict[str, str], float]]:
    if openmetrics:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
    else:
        from prometheus_client.parser import text_string_to_metric_families as parse
    for family in parse(text):
        for sample in family.samples:
            yield sample.name, sample.labels, float(sample.value)


def _own(text: str) -> str:
    """umo's lines."""
    return "".join(
        line
        for line in io.StringIO(text, newline="\n")  # a name may hold what else splits lines
        if line.startswith(("umo_", "# TYPE umo_", "# HELP umo_", "# EOF"))
    )


def reading_of(text: str, time_s: float, openmetrics: bool = False) -> Reading:
    """Prometheus text as a reading. Raises ValueError where it is none."""
    reading = Reading(time_s)
    own = _own(text)
    if "umo_" not in own:
        # Nothing of umo's: a server without it, or no server of metrics at all.
        if text.strip() and not list(_samples(text, openmetrics)):
            raise ValueError("no metrics")
        return reading
    for name, labels, value in _samples(own, openmetrics):
        if name not in FAMILIES or not 0 <= value < _MOST:
            continue
        # Names are cleaned here, once; reasons and modes come from as far away as they do.
        clean = {key: printable(text) for key, text in labels.items()}
        if name in _PROCESS_COUNTERS or name in _PROCESS_GAUGES:
            _put_process(reading, name, clean, value)
            continue
        key = ModelKey(clean.get("model", "?"), clean.get("version", "?"))
        if key not in reading.models and len(reading.models) >= MOST_MODELS:
            continue
        model = reading.models.setdefault(key, type(reading.process)())
        table, figures = (_COUNTERS, model.counters) if name in _COUNTERS else (_GAUGES, model.gauges)
        word, by = table[name]
        at = (word, *(clean.get(label, "?") for label in by))
        figures[at] = figures.get(at, 0.0) + value  # one model of two backends
    return reading


def _put_process(reading: Reading, name: str, labels: dict[str, str], value: float) -> None:
    counter = name in _PROCESS_COUNTERS
    word, by = (_PROCESS_COUNTERS if counter else _PROCESS_GAUGES)[name]
    figures = reading.process.counters if counter else reading.process.gauges
    at = (word, *(labels.get(label, "?") for label in by))
    worse = min if word == "ready" else max
    figures[at] = worse(figures.get(at, value), value)


class Scrape:
    """Readings from a URL. `timeout_s` bounds a whole reading, also of a server that sends byte by byte."""

    def __init__(self, url: str, timeout_s: float = 5.0, most_bytes: int = MOST_BYTES) -> None:
        self.name = url
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._fetching: threading.Thread | None = None
        # http and https alone, also behind a redirection.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def close(self) -> None:
        self._opener.close()

    def _fetch(self) -> tuple[str, bool]:
        deadline = time.monotonic() + self._timeout_s
        request = urllib.request.Request(self.name, headers={"Accept": "text/plain", "User-Agent": "umo-top"})
        parts: list[bytes] = []
        size = 0
        with self._opener.open(request, timeout=self._timeout_s) as answer:
            while chunk := answer.read1(_CHUNK):
                size += len(chunk)
                if size > self._most_bytes:
                    raise SourceError(f"{self.name}: the answer has more than {self._most_bytes >> 20} MiB; no metrics")
                if time.monotonic() > deadline:
                    raise TimeoutError
                parts.append(chunk)
            kind = answer.headers.get_content_type()
        return b"".join(parts).decode("utf-8", errors="replace"), kind == "application/openmetrics-text"

    def _fetch_in_time(self) -> tuple[str, bool]:
        if self._fetching is not None and self._fetching.is_alive():
            raise TimeoutError
        result: list[tuple[str, bool]] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                result.append(self._fetch())
            except BaseException as error:
                failed.append(error)

        self._fetching = threading.Thread(target=run, name="umo-top-scrape", daemon=True)
        self._fetching.start()
        self._fetching.join(self._timeout_s)
        if failed:
            raise failed[0]
        if not result:
            raise TimeoutError
        return result[0]

    def read(self) -> Reading:
        try:
            text, openmetrics = self._fetch_in_time()
        except urllib.error.HTTPError as error:
            with error:
                raise SourceError(f"{self.name}: the server answers {error.code} {printable(error.reason)}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise SourceError(f"{self.name}: {printable(_reason(error))}") from error
        try:
            return reading_of(text, time.monotonic(), openmetrics)
        except Exception as error:  # whatever the parser says of what is no Prometheus text
            raise SourceError(f"{self.name}: what is there is no Prometheus text") from error
