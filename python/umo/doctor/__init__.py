"""What this machine offers umo, what that means, and how to mend what is missing.

Each check tries the thing itself where it can (a view is made, a kernel is run, bytes are compared) and only else reads
what the system says about itself. A check that breaks is a finding of its own and never the end of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["good", "note", "missing", "fault"]
# good      as it should be
# note      works; slower, smaller or less than it could be
# missing   a part that not everybody needs is not there
# fault     umo cannot do its work, or gives wrong bytes


@dataclass(frozen=True)
class Finding:
    area: str  # "library", "devices", ...
    name: str
    state: State
    found: str  # what is there, a fact
    means: str = ""  # what it means for who serves models here
    mend: str = ""  # what to do; always there when the state is not good

    def __post_init__(self) -> None:
        if self.state != "good" and not self.mend:
            raise ValueError(f"{self.area}/{self.name}: {self.state} without a remedy")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Check = Callable[[], Iterator[Finding]]


def checks() -> list[Check]:
    """All checks, in the order in which they are read."""
    from . import devices, memory, pressure, serving, system

    return [
        *serving.LIBRARY, *devices.CHECKS, *system.CHECKS, *memory.CHECKS, *pressure.CHECKS, *serving.CHECKS,
    ]  # fmt: skip


def examine() -> Iterator[Finding]:
    """Runs every check, one after the other."""
    for check in checks():
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  whatever it is, the other checks are still worth reading
            yield Finding(
                check.__module__.rpartition(".")[2],
                check.__name__,
                "fault",
                f"the check itself failed: {type(error).__name__}: {error}",
                mend="please report this, with the output of `umo doctor --json`",
            )
