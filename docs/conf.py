"""Sphinx: the pages of this folder, and the references out of headers, Python modules and commands.

Nothing of a reference is written by hand; docs/_ext has what makes them. Warnings are errors (`make docs`).
"""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(ROOT / "python")]
os.environ.setdefault("UMO_BUILD", str(ROOT / "build" / "release"))

project = "umo"
author = "the authors of umo"
copyright = "the authors of umo, BSD-3-Clause"  # noqa: A001  Sphinx's name
release = re.search(r'__version__ = "([^"]+)"', (ROOT / "python" / "umo" / "__init__.py").read_text())[1]
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "headers", "commands", "pages", "stubs"]
exclude_patterns = ["_build"]
templates_path: list[str] = []
html_theme = "furo"
html_title = f"umo {release}"
html_static_path = ["_static"]
html_css_files = ["umo.css"]
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 4
myst_enable_extensions = ["deflist", "fieldlist"]
smartquotes = False  # what is quoted here is mostly typed somewhere
nitpicky = True
# What is not umo's: the languages' own types, and libraries that this site does not describe.
nitpick_ignore_regex = [
    (r"c:.*", r"(u?int\d+|size|uintptr|ssize|ptrdiff|pid)_t|FILE|DL\w+|TRITON\w+"),
    (
        r"cpp:.*",
        r"((std|detail)::|TRITON|umo_|UMO_|u?int\d+_t|size_t|uintptr_t|FILE).*|std|detail|umo|MetalBuffer|ZeroCopyTensor|UnifiedMemoryPattern",
    ),
    (r"py:.*", r".*"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports: list[str] = []
add_module_names = False
toc_object_entries = False  # a thousand entries, laid out anew for every page
python_use_unqualified_type_names = True
c_maximum_signature_line_length = 80
cpp_maximum_signature_line_length = 80
python_maximum_signature_line_length = 80
highlight_language = "none"
pygments_style = "friendly"
pygments_dark_style = "monokai"


def _written(app, name, source):
    """Leaves out of the index what is not written yet. A misspelt name is found all the same: its page has no place."""
    if name == "index":
        lines = source[0].split("\n")
        pages = [line for line in lines if re.fullmatch(r"[a-z_/-]+", line)]
        missing = {page for page in pages if page not in app.env.found_docs}
        source[0] = "\n".join(line for line in lines if line not in missing)


def setup(app):
    app.connect("source-read", _written)
