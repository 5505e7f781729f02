"""A recording of the flight recorder as one HTML file that needs nothing else (docs/report.md).

umo.report.Report(umo.profile.read("server.umo")).write("report.html")
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import profile as recording

if TYPE_CHECKING:
    from .content import Content

__all__ = ["Report"]


class Report:
    """What a recording says. `source` names it on the page. All is worked out once, when it is first asked for."""

    def __init__(self, profile: recording.Profile, source: str = "a recording") -> None:
        self.profile = profile
        self.source = source

    @cached_property
    def _content(self) -> Content:
        from . import kinds, lanes, memory, sums
        from .content import Content

        events = kinds.Columns(self.profile.events)
        found = lanes.assign(events, sums.weights(events))
        summary = sums.summarise(self.profile, events, found)
        levels = memory.over_time(events, summary.totals.duration_ns)
        return Content(self.profile, events, found, summary, levels, self.source)

    def html(self) -> str:
        """The page."""
        from . import pack, page

        content = self._content
        words = {
            name.lower(): getattr(recording, name)
            for name in ("KINDS", "MODES", "SIDES", "USES", "DIRECTIONS", "REASONS", "STATUSES")
        }
        head = {**words, **page.head(content)}
        data = pack.pack(content.events, content.lanes, content.memory, content.summary.totals.duration_ns, head)
        return page.render(content, data)

    def write(self, path: str | os.PathLike[str]) -> int:
        """Writes the page, at once or not at all, and returns its size in bytes. Raises OSError."""
        page = self.html().encode("utf-8")
        path = Path(path)
        if path.exists() and not path.is_file():  # a pipe or a terminal
            path.write_bytes(page)
            return len(page)
        path = path.resolve()  # a link is followed
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(page)
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return len(page)

    def _named(self, item: Any) -> dict[str, Any]:
        values = asdict(item)
        if values["scope"] is not None:
            values["model"] = self.profile.scopes.get(values["scope"], "")
        return values

    def summary(self) -> dict[str, Any]:
        """What the page says in words and figures, for programs."""
        from . import findings

        content, lanes = self._content, self._content.lanes.lanes
        said, memory = content.summary, content.memory
        rows = []
        for row in said.rows:
            values = self._named(row)
            values["buffers"] = [lanes[lane].buffer for lane in values.pop("lanes") if lanes[lane].buffer]
            rows.append(values)
        models = [
            {
                **self._named(model),
                "peak_bytes": memory.peaks.get(model.scope, 0),
                "end_bytes": memory.ends.get(model.scope, 0),
            }
            for model in said.models
        ]
        moved, saved = asdict(said.totals.moved), asdict(said.totals.saved)
        return {
            "totals": {**asdict(said.totals), "moved": moved, "saved": saved},
            "still_moves": rows,
            "models": models,
            "buffers": [{**self._named(lanes[row.lane]), **asdict(row)} for row in said.buffers],
            "memory": {
                "peak_bytes": memory.peak_bytes,
                "peak_ns": memory.peak_ns,
                "idle_peak_bytes": memory.idle_peak_bytes,
            },
            "findings": [self._named(item) for item in findings.find(content.events)],
            "time": [self._named(item) for item in findings.time_rows(content.events)],
            "facts": self.profile.facts,
        }
