"""What makes links of a page's words: a page's path (docs/pools.md), a function of the C API, a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from headers import INCLUDE, inline, names
from sphinx import addnodes
from sphinx.application import Sphinx

_PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")

# Pages that lie beside what they describe, and the pages here that include them.
BESIDE = {
    "triton/backends/onnxruntime/README": "/umo_onnxruntime",
    "tools/witness/README": "/witnesses",
    "tools/mac-check/README": "/mac-check",
    "tests/conformance/README": "/conformance",
}


def _link(text: str, domain: str, kind: str, target: str) -> nodes.Node:
    link = addnodes.pending_xref("", refdomain=domain, reftype=kind, reftarget=target, refexplicit=True, refwarn=True)
    link += nodes.literal(text, text) if domain == "c" else nodes.inline(text, text)
    return link


def _inside_link(node: nodes.Node) -> bool:
    kinds = (nodes.reference, addnodes.pending_xref, nodes.title, addnodes.download_reference, nodes.literal_block)
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def link(app: Sphinx, doctree: nodes.document) -> None:
    """A name of the C API in a page leads to its description, a page's path to the page, a header to its reference."""
    docs = set(app.env.found_docs)
    here = app.env.docname
    for node in list(doctree.findall(nodes.literal)):
        said = node.astext()
        name = said.removesuffix("()")
        if not _inside_link(node) and name in names():
            kind = "func" if said.endswith("()") else "data" if name.islower() else "macro"
            node.replace_self(_link(said, "c", kind, name))
    for node in list(doctree.findall(nodes.Text)):
        if _PAGE.search(node) and not _inside_link(node) and not isinstance(node.parent, nodes.literal):
            node.parent.replace(node, inline(str(node), docs))
    for node in list(doctree.findall(addnodes.pending_xref)):
        page = next(
            (
                page
                for part, page in BESIDE.items()
                if str(node.get("reftarget", "")).removesuffix(".md").endswith(part)
            ),
            None,
        )
        if page is not None:
            node.replace_self(_link(node.astext(), "std", "doc", page))
    for node in list(doctree.findall(addnodes.download_reference)):
        name = node["reftarget"].rsplit("/", 1)[-1]
        if "include/umo/" in node["reftarget"] and (INCLUDE / name).exists():
            node.replace_self(_link(node.astext(), "std", "doc", f"/{_header_page(app, name)}"))
    if here == "reasons":
        for node in list(doctree.findall(nodes.literal)):
            cell = node.parent.parent
            if isinstance(cell, nodes.entry) and cell.parent.index(cell) == 0 and cell.astext() == node.astext():
                label = node.astext()
                anchor = label if label.islower() else "umo_ok" if label == "OK" else f"umo_e_{label.lower()}"
                target = nodes.reference("", "", refuri=f"tuning.html#{anchor}", internal=True)
                target += node.deepcopy()
                node.replace_self(target)


def _header_page(app: Sphinx, name: str) -> str:
    """The page of the reference that shows a header."""
    for page in app.env.found_docs:
        if page.startswith("reference/") and f"umo-header:: {name}\n" in Path(app.env.doc2path(page)).read_text():
            return page
    raise LookupError(f"{name} is on no page of the reference")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
