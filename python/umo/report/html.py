"""HTML out of values. Whatever is no Html is text and gets escaped; there is no other way in."""

from __future__ import annotations

import html

_VOID = frozenset(("br", "input", "meta", "wbr"))


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Escapes what is not yet markup."""
    if isinstance(value, Html):
        return value
    # The separators are line ends to some readers of scripts and none to others.
    escaped = html.escape(str(value), quote=True)
    return Html(escaped.replace("\u2028", "&#x2028;").replace("\u2029", "&#x2029;"))


def join(*children: object) -> Html:
    """One behind the other; None is left out, lists are walked."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        parts.append(join(*child) if isinstance(child, (list, tuple)) else text(child))
    return Html("".join(parts))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element. class_ and for_ lose their last letter, other_names their underscores; None and False leave an
    attribute out, True leaves out its value."""
    said = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        said += f" {key}" if value is True else f' {key}="{text(value)}"'
    return Html(f"<{name}{said}>" if name in _VOID else f"<{name}{said}>{join(*children)}</{name}>")
