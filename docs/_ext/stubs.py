"""Python's reference: signatures of the extension's classes come from umo/_core.pyi, where they are typed; the words
come from the extension. Docstrings are plain text that looks right in an editor: what is indented stays as it stands.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

STUB = Path(__file__).resolve().parents[2] / "python" / "umo" / "_core.pyi"


@functools.cache
def signatures() -> dict[str, tuple[str, str | None]]:
    """`Context.empty` -> its parameters and its result, as text."""
    made: dict[str, tuple[str, str | None]] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{node.name}.")
            elif isinstance(node, ast.FunctionDef) and prefix + node.name not in made:  # a setter comes second
                arguments = node.args
                static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)
                if prefix and not static:
                    del (arguments.posonlyargs or arguments.args)[0]  # self
                returns = None if node.returns is None else ast.unparse(node.returns)
                made[prefix + node.name] = (f"({ast.unparse(arguments).removeprefix('/').lstrip(', ')})", returns)

    visit(ast.parse(STUB.read_text()).body, "")
    return made


def _short(name: str) -> str:
    return name.removeprefix("umo._core.").removeprefix("umo.")


def typed(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """The stub's signature where it has one; a class is shown with that of its __new__."""
    if what == "class":
        made = signatures().get(f"{_short(name)}.__new__")
        own = getattr(thing, "__module__", "").startswith(("umo._core", "umo"))
        return (made[0], None) if made else ("", None) if own and _short(name) in dir(_core()) else None
    return signatures().get(_short(name)) if what in ("method", "function") else None


def _core() -> Any:
    import umo._core

    return umo._core


def plain(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Blocks with indented lines are shown as they stand; an attribute of the extension gets its type."""
    made: list[str] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
            continue
        if any(one.startswith(" ") for one in block) and not block[0].startswith((":", ".. ", "- ", "* ")):
            first = next(i for i, one in enumerate(block) if one.startswith(" "))
            whole = all(one.startswith(" ") for one in block[first:])
            head, rest = (block[:first], block[first:]) if whole else ([], ["   " + one for one in block])
            made += [*head, "", "::", "", *rest]
        else:
            made += block
        made.append("")
        block = []
    found = signatures().get(_short(name)) if what in ("attribute", "property") else None
    if found and found[1]:
        made += [f":type: ``{found[1].replace('_', '', 1) if found[1].startswith('_') else found[1]}``", ""]
    lines[:] = made


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-signature", typed)
    app.connect("autodoc-process-docstring", plain)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
