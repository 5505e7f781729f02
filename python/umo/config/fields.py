"""What a `unified_memory` object may say: the rules of triton/kit/unified.c, for a file that no server has seen yet.

The kit stops at the first problem, since a model then does not load; here all of them are found. Both say the same of
every value: tests/e2e/test_serve.py asks a real server about each row of the tests.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PATTERNS = ("cpu_dominant", "gpu_dominant", "balanced", "streaming", "unknown")
GROUPS = ("input", "output", "weights", "intermediate")
POOL_FIELDS = tuple(f"{size}_buffer_{what}" for size in ("small", "medium", "large") for what in ("size", "count"))
_PATTERNS_MAX = 4096
_SIZE_MAX = 2**64 - 2  # the next one means "auto"


class Duplicates(dict[str, Any]):
    """An object in which keys were written twice."""

    def __init__(self, pairs: Iterable[tuple[str, Any]], twice: Iterable[str]) -> None:
        super().__init__(pairs)
        self.twice = tuple(twice)


@dataclass(frozen=True)
class Finding:
    """One problem: where in the object, and what to do."""

    path: str
    text: str


Report = Callable[[str, str], None]


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a number with a fraction"
    if isinstance(value, str):
        return f'a string ("{quote(value)}")'
    return "an array" if isinstance(value, list) else "an object"


def quote(text: str, most: int = 40) -> str:
    """What a user wrote, fit for one line."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:most])
    return shown + ("..." if len(text) > most else "")


def suggest(name: str, names: Iterable[str]) -> str:
    """ "; did you mean X?" where a name was probably mistyped, else nothing."""
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(names), 1, 0.8) if len(name) <= 64 else []
    return f"; did you mean {found[0]}?" if found else ""


def _bool(value: Any, path: str, report: Report) -> None:
    if not isinstance(value, bool):
        report(path, f"is {kind_of(value)}; write true or false")


def _size(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
        value = int(value) if len(value) < 40 else _SIZE_MAX + 1
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _SIZE_MAX:
        return None
    return value


def _threshold(value: Any, path: str, report: Report) -> None:
    if value == "auto" or _size(value) is not None:
        return
    what = kind_of(value)
    if isinstance(value, int) and not isinstance(value, bool):
        what = "negative" if value < 0 else "too large"
    report(path, f'is {what}; write a number of bytes, 0 or more, or "auto"')


def _line(value: Any, path: str, report: Report) -> None:
    size = _size(value)
    if size is None or not 1 <= size <= 4096 or size & (size - 1):
        report(path, f"is {kind_of(value)}; write a power of two from 1 to 4096, which memory is aligned to")


def _device(value: Any, path: str, report: Report) -> None:
    match = re.fullmatch(r"([^:]{1,15})(?::([0-9]{1,4}))?", value) if isinstance(value, str) else None
    if match is None or len(match[1].encode()) > 15 or int(match[2] or 0) >= 1024:
        report(path, f'is {kind_of(value)}; write a driver and a number, as "opencl:0"')


def _patterns(value: Any, path: str, report: Report) -> None:
    if not isinstance(value, list):
        report(path, f"is {kind_of(value)}; write an array")
        return
    if len(value) > _PATTERNS_MAX:
        report(path, f"has {len(value)} entries; at most {_PATTERNS_MAX}")
        return
    seen: dict[str, int] = {}
    for index, entry in enumerate(value):
        at = f"{path}[{index}]"
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or not name or set(entry) != {"name", "pattern"}:
            report(at, 'an entry is {"name": TENSOR, "pattern": PATTERN} and nothing else')
            continue
        if name in seen:
            report(f"{at}.name", f"'{quote(name)}' has a pattern already, at [{seen[name]}]")
        seen.setdefault(name, index)
        pattern = entry["pattern"]
        if pattern not in PATTERNS:
            shown = quote(pattern) if isinstance(pattern, str) else kind_of(pattern)
            hint = suggest(pattern, PATTERNS) if isinstance(pattern, str) else ""
            hint = f"{hint} Write" if hint else "; write"
            report(f"{at}.pattern", f"'{shown}' is no pattern{hint} {', '.join(PATTERNS[:-1])} or unknown")
        _twice(entry, at, report)


def _pool(value: Any, path: str, report: Report) -> None:
    if not isinstance(value, Mapping):
        report(path, f"is {kind_of(value)}; write an object")
        return
    _twice(value, path, report)
    for name, figure in value.items():
        if name not in POOL_FIELDS:
            report(
                path, f"has no field '{quote(name)}'{suggest(name, POOL_FIELDS) or f'; it has {_list(POOL_FIELDS)}'}"
            )
            continue
        least = 0 if name.endswith("_count") else 1
        size = _size(figure)
        if size is None or size < least:
            report(f"{path}.{name}", f"is {kind_of(figure)}; write a number, {least} or more")
    defaults = {"small": (65536, 128), "medium": (1 << 20, 32), "large": (16 << 20, 8)}
    keep = 0
    for which, (size, count) in defaults.items():
        given = (_size(value.get(f"{which}_buffer_size", size)), _size(value.get(f"{which}_buffer_count", count)))
        keep += (given[0] or 0) * (given[1] or 0)
    if keep >= 2**64:
        report(path, "sizes times counts are more bytes than there can be")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _twice(value: Any, path: str, report: Report) -> None:
    for name in getattr(value, "twice", ()):
        report(f"{path}.{name}", "is written twice; write it once")


FIELDS: dict[str, Callable[[Any, str, Report], None]] = {
    "enable": _bool,
    "batch_optimization": _bool,
    "trusted_clients": _bool,
    "profiling": _bool,
    "parallel_copies": _bool,
    "zero_copy_threshold": _threshold,
    "device": _device,
    "tensor_patterns": _patterns,
    "cache_line_size": _line,
    "pool_config": _pool,
    "enable_numa_optimization": _bool,
}

# Of the whole process: an operator's to say, on the server's command line.
PROCESS_FIELDS = ("enable_pressure_adaptation", "memory_pressure_threshold")

# Names of the original design that a model's configuration has no use for.
INSTEAD = {
    "enable_unified_memory": "write enable, its name in a configuration",
    "enable_zero_copy": "write enable: it is one switch with zero copy",
    "enable_batch_optimization": "write batch_optimization, its name in a configuration",
    "enable_profiling": "write profiling, its name in a configuration",
    "enable_auto_placement": "tensors of a served model stay where its clients have them, and nothing moves at run "
    "time; where weights go is decided at load, by tensor_patterns",
    "placement_change_threshold": "nothing of a served model moves at run time; in a program it is "
    "umo_optimizer_config's",
    "enable_prefetching": "a served model's tensors are there when they are used; in a program it is "
    "umo_optimizer_config's",
    "prefetch_size": "nothing is prefetched for a served model; in a program it is umo_optimizer_config's",
}


def check_object(value: Any, path: str = "unified_memory") -> list[Finding]:
    """Everything that is wrong with an object, in its own order."""
    found: list[Finding] = []

    def report(at: str, text: str) -> None:
        found.append(Finding(at, text))

    if not isinstance(value, Mapping):
        return [Finding(path, f"is {kind_of(value)}; write an object")]
    _twice(value, path, report)
    for name, field in value.items():
        at = f"{path}.{quote(name)}"
        if name in FIELDS:
            FIELDS[name](field, at, report)
        elif name in PROCESS_FIELDS:
            report(
                at,
                "is of the whole process and not of one model: start the server with "
                f"--backend-config=BACKEND,unified_memory.{name}=VALUE",
            )
        elif name in INSTEAD:
            report(at, f"has no meaning here: {INSTEAD[name]}")
        else:
            hint = suggest(name, [*FIELDS, *PROCESS_FIELDS]) or f"; it has {_list(FIELDS)}"
            report(path, f"has no field '{quote(name)}'{hint}")
    return found


def pattern_names(value: Any) -> list[str]:
    """The names that tensor_patterns has something to say about, in an object that is right."""
    return [entry["name"] for entry in value.get("tensor_patterns", [])] if isinstance(value, Mapping) else []
