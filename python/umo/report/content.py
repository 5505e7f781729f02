"""All that a page shows, worked out; and how its figures are written there."""

from __future__ import annotations

from dataclasses import dataclass

from .. import profile as recording
from . import words
from .html import Html, tag
from .kinds import Columns
from .lanes import Lanes
from .memory import Memory
from .sums import Summary, Totals

MOST_ROWS = 60
MOST_BUFFERS = 400
MOST_CHANGES = 200


@dataclass
class Content:
    profile: recording.Profile
    events: Columns
    lanes: Lanes
    summary: Summary
    memory: Memory
    source: str

    @property
    def totals(self) -> Totals:
        return self.summary.totals

    def scope(self, scope: int) -> Html:
        """A model's name, kept from steering the text around it."""
        name = self.profile.scopes.get(scope)
        if name is None:
            return tag("span", f"scope {scope}" if scope else "no scope", class_="unnamed")
        return tag("bdi", words.shown(name))

    def device(self, device: int) -> str:
        return words.shown(self.profile.devices.get(device, ""))


def amount(value: float) -> str:
    """As words.amount(), but a line does not end between figure and unit."""
    return words.amount(value).replace(" ", "\u00a0")


def rate(value: float) -> str:
    """As words.rate()."""
    return words.rate(value).replace(" ", "\u00a0")


def span(value: float) -> str:
    """As words.span()."""
    return words.span(value).replace(" ", "\u00a0")
