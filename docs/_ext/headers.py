"""The C and C++ reference out of the public headers: `.. umo-header:: pool.h`.

libclang says what is declared; what is shown is the header's own text, in its own order, with its plain comments
between. Nothing that is declared is left out because nobody documented it: a reader wants all fields of a structure.
The fixed words of a docstring (Errors, Ownership, Threads, Cost, Source) become fields, and umo's names links.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "include" / "umo"
WORDS = ("Errors", "Ownership", "Threads", "Cost", "Source")
_WORD = re.compile(rf"(?:^|(?<=[.;:)\]]) )({'|'.join(WORDS)}):[ ]*", re.MULTILINE)
_STATUS_ROW = re.compile(r"^([A-Z_]{4,}(?:, [A-Z_]{4,})*)(?:  +(.*)|([.:,;].*)?)$")
_ATTRIBUTES = re.compile(r"\b(?:UMO_API|UMO_MUST_USE|inline|virtual|explicit|override|extern)\b|\bUMO_PRINTF\([^)]*\)")
_MACRO = re.compile(
    r"^(?:/\*\*(?P<doc>(?:(?!\*/).)*)\*/\n)?#define (?P<name>UMO_\w+)(?P<args>\([^)]*\))?[ ](?P<value>[^\n]*)",
    re.S | re.M,
)
# For the headers' own use.
_INTERNAL = {"UMO_API", "UMO_MUST_USE", "UMO_PRINTF", "UMO_STATIC_ASSERT", "UMO_REASON", "UMO_STATUS"}
_REMARK = re.compile(r"(?<=\n\n)/\* (?P<text>(?:(?!\*/).)*?) ?\*/\n", re.S)
_TOKEN = re.compile(r"`([^`\n]+)`|\bdocs/([\w/-]+?)(\.md)?(?=[\s.,;:)]|$)|\b((?:umo_|UMO_)\w+)(\(\))?")


@dataclass
class Item:
    """One declaration, or a remark that stands between two (no kind then)."""

    at: int
    kind: str = ""
    signature: str = ""
    doc: str = ""
    members: list[Item] = field(default_factory=list)
    namespace: str = ""


def clean(comment: str | None) -> str:
    """A comment's text without its stars."""
    if not comment:
        return ""
    text = re.sub(r"^/\*\*?<?|\*/$", "", comment.strip())
    lines = [re.sub(r"^\s*\* ?", "", line) for line in text.split("\n")]
    lines[0] = lines[0].strip()
    return "\n".join(line.rstrip() for line in lines if not line.startswith("@file")).strip()


@functools.cache
def _units() -> dict[str, Any]:
    from clang import cindex

    builtin = subprocess.run(["cc", "-print-file-name=include"], capture_output=True, text=True, check=True)
    common = ["-I", str(INCLUDE.parent), "-isystem", builtin.stdout.strip()]
    triton = ["-I", str(ROOT / "tests" / "cxx" / "include"), "-I", str(ROOT / "triton")]
    made = {}
    for name, text, options in (
        (
            "all.c",
            "".join(f"#include <umo/{path.name}>\n" for path in sorted(INCLUDE.glob("*.h"))),
            ["-xc", "-std=c11"],
        ),
        ("all.cc", "#include <umo/unified_backend.hpp>\n", ["-xc++", "-std=c++17", *triton]),
    ):
        unit = cindex.Index.create().parse(name, args=[*common, *options], unsaved_files=[(name, text)])
        wrong = [str(said) for said in unit.diagnostics if said.severity >= cindex.Diagnostic.Error]
        if wrong:
            raise RuntimeError("libclang cannot read the headers: " + "; ".join(wrong[:3]))
        made[name] = unit
    return made


def _source(cursor: Any, text: str) -> str:
    """What stands in the header from the declaration's begin to its body, on one line."""
    end = cursor.extent.end.offset
    for child in cursor.get_children():
        if child.kind.name == "COMPOUND_STMT":
            end = child.extent.start.offset
    raw = text[cursor.extent.start.offset : end]
    raw = re.sub(r"/\*.*?\*/", " ", raw, flags=re.S)
    said = re.sub(r"\s+", " ", _ATTRIBUTES.sub(" ", raw)).strip().rstrip(";").strip()
    return said if cursor.semantic_parent.kind.is_declaration() else said.removeprefix("static ")


def _function(cursor: Any, text: str) -> str:
    said = _source(cursor, text)
    if cursor.kind.name == "CONSTRUCTOR":  # its initialisers are no part of what it promises
        said = re.sub(r"\)\s*(noexcept)?\s*:(?!:).*$", r") \1", said)
    return re.sub(r"\s*=\s*(default?|0)?$", "", said).strip()


_FUNCTIONS = ("FUNCTION_DECL", "CXX_METHOD", "CONSTRUCTOR", "CONVERSION_FUNCTION")


def _members(cursor: Any, text: str, domain: str) -> Iterator[Item]:
    from clang.cindex import AccessSpecifier

    for child in cursor.get_children():
        if child.access_specifier == AccessSpecifier.PRIVATE or "= delete" in _source(child, text):
            continue
        if (child.kind.name == "CXX_METHOD" and child.spelling.startswith("operator=")) or child.is_anonymous():
            continue
        if child.kind.name == "FIELD_DECL":
            said = _source(child, text)
            if domain == "cpp":
                said = re.sub(r"\s*=\s*\{.*$", "", said)
            yield Item(child.location.offset, f"{domain}:member", said, clean(child.raw_comment))
        else:
            yield from _declared(child, text, domain)


def _value(value: Any, of: Any, text: str, domain: str) -> Item:
    """One enumerator. Those that reasons.inc makes have no text of their own in the header."""
    here = value.location.file.name == of.location.file.name
    if here and (said := _source(value, text)).startswith(value.spelling):
        return Item(value.location.offset, f"{domain}:enumerator", said, clean(value.raw_comment))
    name = value.spelling.removeprefix("UMO_REASON_")
    row = re.search(rf'UMO_REASON\({name}, "(\w+)",\s*"([^"]*)"', (INCLUDE / "reasons.inc").read_text())
    return Item(0, f"{domain}:enumerator", value.spelling, f"`{row[1]}`: {row[2]}" if row else "")


def _declared(cursor: Any, text: str, domain: str) -> Iterator[Item]:
    at, name, doc, kind = cursor.extent.start.offset, cursor.spelling, clean(cursor.raw_comment), cursor.kind.name
    if kind in _FUNCTIONS:
        yield Item(at, f"{domain}:function", _function(cursor, text), doc)
    elif kind == "ENUM_DECL" and cursor.is_definition():
        values = [
            _value(value, cursor, text, domain) for value in cursor.get_children() if "CONSTANT" in value.kind.name
        ]
        called = "@" + values[0].signature.split()[0].lower() if cursor.is_anonymous() else name
        yield Item(at, f"{domain}:enum-class" if cursor.is_scoped_enum() else f"{domain}:enum", called, doc, values)
    elif kind in ("STRUCT_DECL", "CLASS_DECL") and cursor.is_definition():
        what = "class" if kind == "CLASS_DECL" else "struct"
        bases = [base.type.spelling for base in cursor.get_children() if base.kind.name == "CXX_BASE_SPECIFIER"]
        said = name + (" : public " + ", ".join(bases) if bases else "")
        yield Item(at, f"{domain}:{what}", said, doc, list(_members(cursor, text, domain)))
    elif kind == "TYPEDEF_DECL":
        said = re.sub(r"^typedef ", "", _source(cursor, text))
        target = cursor.underlying_typedef_type.get_declaration()
        if target.spelling == name and target.get_definition() is not None:
            return  # typedef struct x {...} x: the structure says it
        yield Item(at, f"{domain}:type", name if re.fullmatch(rf"struct {name} {name}", said) else said, doc)
    elif kind == "TYPE_ALIAS_DECL":
        yield Item(at, "cpp:type", _source(cursor, text).removeprefix("using ").strip(), doc)
    elif kind == "VAR_DECL":
        yield Item(at, f"{domain}:var", _source(cursor, text), doc)


def _in_namespace(cursor: Any, path: str, text: str, inside: str = "") -> Iterator[Item]:
    for child in cursor.get_children():
        if child.location.file is None or child.location.file.name != path:
            continue
        if child.kind.name == "NAMESPACE":
            if child.spelling != "detail":  # nobody's to use
                name = f"{inside}::{child.spelling}".lstrip(":")
                yield from _in_namespace(child, path, text, name)
        elif child.kind.name == "LINKAGE_SPEC" or child.kind.name == "UNEXPOSED_DECL":
            yield from _in_namespace(child, path, text, inside)
        else:
            for item in _declared(child, text, "cpp"):
                item.namespace = inside
                yield item


@functools.cache
def items(name: str) -> tuple[str, tuple[Item, ...]]:
    """What the header is for, and its declarations in its own order."""
    path = INCLUDE / name
    text = path.read_text()
    raw = path.read_bytes().decode("latin-1")  # libclang counts bytes
    opening = clean(text[text.index("/**") : text.index("*/") + 2])
    found: list[Item] = []
    if path.suffix == ".hpp":
        found += _in_namespace(_units()["all.cc"].cursor, str(path), raw)
    else:
        for cursor in _units()["all.c"].cursor.get_children():
            if cursor.location.file is not None and cursor.location.file.name == str(path):
                found += _declared(cursor, raw, "c")
    for match in _MACRO.finditer(raw):
        if match["name"] in _INTERNAL:
            continue
        doc = clean(f"/**{match['doc'] or ''}*/")
        found.append(Item(match.start(), "c:macro", match["name"] + (match["args"] or ""), doc))
        value = match["value"].strip()
        if value and not value.endswith("\\") and not match["args"]:
            found[-1].doc = f"`{value}`. {found[-1].doc}"
    for match in _REMARK.finditer(raw):
        found.append(Item(match.start(), doc=clean(match[0])))
    found.sort(key=lambda item: item.at)
    for item in found:
        item.at = raw.count("\n", 0, item.at)  # for messages: its line
    return opening, tuple(found)


@functools.cache
def names() -> frozenset[str]:
    """All names that the C headers declare."""
    found: set[str] = set()
    for path in sorted(INCLUDE.glob("*.h")):
        for item in items(path.name)[1]:
            for one in (item, *item.members):
                if one.kind and one.kind != "c:member":
                    match = re.search(r"(?:\(\*)?\b((?:umo_|UMO_)\w+)(?=\)?\s*\(|$|\s*=|\[)", one.signature)
                    found.update(match.groups() if match else ())
    return frozenset(found)


def inline(text: str, docs: set[str]) -> list[nodes.Node]:
    """A paragraph's text with links to what it names."""
    made: list[nodes.Node] = []
    last = 0
    text = re.sub(r"\s+", " ", text)
    for match in _TOKEN.finditer(text):
        code, page, _, name, call = match.groups()
        node: nodes.Node
        if code is not None and (name := code.removesuffix("()")) not in names():
            node = nodes.literal(code, code)
        elif page is not None:
            target = next((d for d in docs if d == page or d.startswith(f"{page}-")), None)
            if target is None:
                continue
            node = addnodes.pending_xref(
                "", refdomain="std", reftype="doc", reftarget=f"/{target}", refexplicit=False, refwarn=True
            )
            node += nodes.inline(match[0], match[0])
        elif name in names():
            said = f"{name}()" if call or (code or "").endswith("()") else name
            node = addnodes.pending_xref("", refdomain="c", reftype="any", reftarget=name, refexplicit=True)
            node["reftype"] = "func" if said.endswith("()") else "expr" if name.islower() else "macro"
            node["reftype"] = "data" if node["reftype"] == "expr" else node["reftype"]
            node += nodes.literal(said, said)
        else:
            continue
        made += [nodes.Text(text[last : match.start()]), node]
        last = match.end()
    return [*made, nodes.Text(text[last:])]


def _paragraphs(text: str, docs: set[str]) -> list[nodes.Node]:
    made: list[nodes.Node] = []
    for block in re.split(r"\n\s*\n", text):
        if not block.strip():
            continue
        if all(line.startswith("    ") for line in block.split("\n")):
            made.append(nodes.literal_block(block, re.sub(r"^    ", "", block, flags=re.M), language="c"))
        else:
            made.append(nodes.paragraph("", "", *inline(block.strip(), docs)))
    return made


def _errors(text: str, docs: set[str]) -> list[nodes.Node]:
    """A list of results where the docstring has one, else a paragraph."""
    rows: list[list[str]] = []
    for at, line in enumerate(text.strip().split("\n")):
        match = _STATUS_ROW.match(line.strip())
        if match and (rows or at == 0):
            rows.append([match[1], match[2] or match[3] or ""])
        elif rows:
            rows[-1][1] += " " + line.strip()
        else:
            return _paragraphs(text, docs)
    made = nodes.bullet_list(bullet="*")
    for name, said in rows:
        text = nodes.paragraph()
        for i, one in enumerate(name.split(", ")):
            text += nodes.Text(", ") if i else nodes.Text("")
            text += nodes.literal(one, one)
        text += inline((" " if said[:1].isalnum() else "") + said, docs)
        made += nodes.list_item("", text)
    return [made]


def _fields(pairs: list[tuple[str, list[nodes.Node]]]) -> nodes.Node:
    made = nodes.field_list()
    for name, body in pairs:
        made += nodes.field("", nodes.field_name(name, name), nodes.field_body("", *body))
    return made


def documented(doc: str, docs: set[str]) -> list[nodes.Node]:
    """A docstring as nodes: its text, its parameters, its fixed words."""
    parts = _WORD.split(doc)
    text, words = parts[0], list(zip(parts[1::2], parts[2::2], strict=True))
    pairs: list[tuple[str, list[nodes.Node]]] = []
    kept = []
    for block in re.split(r"\n\s*\n|\n(?=@)", text):
        match = re.match(r"@param(?:\[(\w+)\])?\s+(\w+)\s+(.*)", block, re.S)
        if match:
            body = nodes.paragraph("", "", *inline(match[3], docs))
            pairs.append((match[2] + (f" [{match[1]}]" if match[1] else ""), [body]))
        else:
            kept.append(block)
    for word, said in words:
        pairs.append((word, _errors(said, docs) if word == "Errors" else _paragraphs(said, docs)))
    made = _paragraphs("\n\n".join(kept), docs)
    return [*made, _fields(pairs)] if pairs else made


def _skeleton(item: Item, indent: str = "") -> Iterator[str]:
    yield f"{indent}.. {item.kind}:: {item.signature}"
    yield ""
    for member in item.members:
        yield from _skeleton(member, indent + "   ")


def _flat(item: Item) -> Iterator[Item]:
    yield item
    for member in item.members:
        yield from _flat(member)


class HeaderDirective(SphinxDirective):
    """`.. umo-header:: NAME`: what the header says of itself, then all that it declares."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        self.env.note_dependency(str(INCLUDE / name))
        docs = set(self.env.found_docs)
        opening, found = items(name)
        made: list[nodes.Node] = documented(opening, docs)
        namespace = ""
        for item in found:
            if item.namespace != namespace:
                namespace = item.namespace
                made.append(nodes.rubric("", f"namespace {namespace}"))
            if not item.kind:
                made += _paragraphs(item.doc, docs)
                continue
            place = nodes.Element()
            where = (str(INCLUDE / name), item.at)
            lines = list(_skeleton(item))
            if item.kind.startswith("cpp:"):
                lines = [f".. cpp:namespace:: {namespace or 'NULL'}", "", *lines, ".. cpp:namespace:: NULL"]
            self.state.nested_parse(StringList(lines, items=[where] * len(lines)), 0, place)
            described = list(place.findall(addnodes.desc))
            flat = list(_flat(item))
            if len(described) != len(flat):
                raise self.error(
                    f"{name}: {item.signature}: {len(described)} of {len(flat)} declarations were understood"
                )
            for node, one in zip(described, flat, strict=True):
                content = next(child for child in node.children if isinstance(child, addnodes.desc_content))
                for at, part in enumerate(documented(one.doc, docs)):
                    content.insert(at, part)
            made += place.children
        return made


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("umo-header", HeaderDirective)
    app.connect("build-finished", lambda *_: _units.cache_clear())  # libclang's own way out comes too late at the end
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
