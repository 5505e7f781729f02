"""Every text that can become an error line says what is wrong and what to do: docs/cli.md has the rule.

Texts are collected from the source, so that a new one is held to it too. What is listed here says enough by itself, and
each list may only shrink: an entry that no source has any more is an error as well.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from umo.cli.run import REMEDIES_OF, complaint
from umo.words import reasons, results

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "umo"

# An error of a program that uses the package, and no command's last line: it has to name a value and no more.
OF_PROGRAMS = {"AttributeError", "IndexError", "TypeError", "ValueError", "MemoryError", "InferenceServerException"}
# Parts of a line that others complete: "FILE: a checksum is wrong; record it again", "FILE:7: error: ... expected".
PARTS = {"_Damaged", "_fail", "_Line", "TextError", "Fault", "WrongAnswer", "DemoError", "Stopped", "_problem"}
# Measurements: `umo bench` says of which, and "; `umo doctor` says what is missing" behind it.
MEASURED = "bench/"
NAMELESS = {
    "an array of objects has no bytes of its own to share",
    "a slope needs at least two different sizes",
    "no metrics",
}
REMEDY = re.compile(r"(?:; |: (?=run |install |pip |build |enlarge |write |give ))\S+")


def _text(node: ast.expr) -> str | None:
    """The text of a literal; {} where a value comes in, and ; for what why() or a hint adds."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else _value(part)
            for part in node.values
            if isinstance(part, (ast.Constant, ast.FormattedValue))
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else left + right
    return None


def _value(part: ast.FormattedValue) -> str:
    said = ast.unparse(part.value)
    return "{}; remedy" if said.startswith(("why(", "complaint(")) or said == "hint" else "{}"


def raised() -> Iterator[tuple[str, str, str]]:
    """(place, the class or function, the text)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                call = node.exc
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                text = _text(call.args[0])
                if text is not None:
                    yield f"{file.relative_to(PACKAGE)}:{node.lineno}", name, text


def test_every_error_of_the_tools_says_what_to_do():
    seen, wrong = set(), []
    for place, name, text in raised():
        seen.add(text)
        if name in PARTS or place.startswith(MEASURED) or name in REMEDIES_OF or REMEDY.search(text):
            continue
        if name in OF_PROGRAMS and ("{}" in text or text in NAMELESS):
            continue
        wrong.append((place, name, text))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(seen) > 150 and seen >= NAMELESS


def test_an_error_s_class_or_status_gives_the_remedy_that_its_words_lack():
    kind = type("ServerError", (RuntimeError,), {})
    assert complaint(kind("it ended\n  a line of its log")).splitlines()[0].startswith("it ended; see what it said")
    assert complaint(kind("no server; install one")) == "no server; install one"
    below = type("Deeper", (kind,), {})
    assert "; see what it said" in complaint(below("it ended"))
    from umo.profile.recorder import NOT_FOUND, RecorderError

    assert complaint(RecorderError(NOT_FOUND, "no process 7")).startswith("no process 7; `pgrep")
    assert complaint(RecorderError(NOT_FOUND + 1, "busy")) == f"busy; {results()[NOT_FOUND + 1].remedy}"
    assert complaint(FileNotFoundError(2, "No such file or directory", "x")) == (
        "x: No such file or directory; check the path"
    )


@pytest.mark.parametrize("words", [*reasons(), *results()], ids=lambda words: words.label)
def test_every_reason_and_result_has_cause_and_remedy(words):
    assert len(words.cause.split()) >= 3 and len(words.remedy.split()) >= 2


def test_an_error_of_the_extension_has_a_remedy_without_a_reason_too():
    import umo

    with umo.Context() as context, pytest.raises(umo.NotFoundError) as raised:
        context.device("no_such_driver")
    (found,) = [words for words in results() if words.label == "NOT_FOUND"]
    assert raised.value.reason is None and raised.value.remedy == found.remedy


# --- the library and the kit ------------------------------------------------------------------------------------------

CALL = re.compile(
    r'umo_error_set\(\s*[^;]*?,\s*([^,;]+?),\s*[^,;]+?,\s*((?:"(?:[^"\\]|\\.)*"|\s|\\\n|PRI\w+|[A-Z_]+)+)'
)
# The status says all that can be done: memory, a device, somebody else's use.
BY_STATUS = {
    "UMO_E_NOMEM",
    "UMO_E_BUSY",
    "UMO_E_TIMEOUT",
    "UMO_E_DEVICE",
    "UMO_E_SYSTEM",
    "UMO_E_LIMIT",
    "UMO_E_REFUSED",
}
# What has to hold, or what to do, is in the words themselves.
STATES = re.compile(r": |; |\b(must|needs?|at least|at most|lies in|or more|is off|give|overlaps?)\b")
# A backend's or the server's own mistake: nobody who serves a model can mend it.
COMPLETE = {
    "the batch has no such input",
    "the batch has no such output left to place",
    "the backend's options are not JSON",
    "its pieces overflow",
    "an input's pieces changed",
    "the request is being finished",
}
VAGUE = re.compile(r"^(failed|error|invalid|bad \w+|unknown error|internal error|unsupported)\.?$", re.IGNORECASE)


def texts_in_c() -> list[tuple[str, str, str]]:
    """(place, the status, the format)."""
    found = []
    for folder in ("src", "triton/kit", "triton/backends"):
        for file in sorted((ROOT / folder).rglob("*.c")):
            if file.name.endswith("_test.c") or file.name.startswith("fake_"):
                continue
            source = file.read_text()
            for match in CALL.finditer(source):
                text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match[2]))
                if text:
                    line = source.count("\n", 0, match.start()) + 1
                    found.append((f"{file.relative_to(ROOT)}:{line}", match[1].strip(), text))
    return found


def test_every_error_of_the_library_names_a_value_or_what_has_to_hold():
    texts = texts_in_c()
    assert len(texts) > 450
    wrong, seen = [], set()
    for place, status, text in texts:
        seen.add(text)
        if re.fullmatch(r"[%a-z\[\]:._ ]*%s", text) and len(text.split()) < 3:
            continue  # another's words, passed on
        served = place.startswith("triton/")
        enough = "%" in text or STATES.search(text) or status in BY_STATUS or not status.startswith("UMO_E_")
        if VAGUE.match(text) or len(text.split()) < 2 or (served and not enough and text not in COMPLETE):
            wrong.append((place, status, text))
    assert not wrong, "\n".join(map(str, wrong))
    assert seen >= COMPLETE, COMPLETE - seen


def test_no_error_shows_an_address_or_a_line_break():
    for place, _, text in texts_in_c():
        assert "%p" not in text and "\\n" not in text, (place, text)
