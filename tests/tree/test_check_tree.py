"""scripts/check-tree on a tiny tree: silent on a good one, and one finding, at the right line, for each violation."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check-tree"
MARKER = "TO" + "DO"
CFLAGS = ["-std=c11", "-fPIC", "-fvisibility=hidden", "-Iinclude", "-Isrc"]

GOOD = {
    ".clang-format": "BasedOnStyle: LLVM\nIndentWidth: 4\nBreakBeforeBraces: Linux\n"
    "AllowShortFunctionsOnASingleLine: None\n",
    "src/LAYERS": "# Bottom first.\nbase\nmem\n",
    "include/umo/status.h": """\
/** @file status.h The results of calls. */
#ifndef UMO_STATUS_H
#define UMO_STATUS_H
#define UMO_API __attribute__((visibility("default")))
#define UMO_MUST_USE
typedef enum umo_status { UMO_OK } umo_status;

/** The name of a result. */
UMO_API const char *umo_status_name(umo_status status);
#endif
""",
    "include/umo/buffer.h": """\
/**
 * @file buffer.h
 * Memory in buffers.
 */
#ifndef UMO_BUFFER_H
#define UMO_BUFFER_H
#include <umo/status.h>

/**
 * Takes memory.
 *
 * Errors: none.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_alloc(int size);

/** Gives memory back. Errors: as umo_buffer_alloc(). */
UMO_API umo_status umo_buffer_free(void);
#endif
""",
    "src/base/base.h": """\
/* The inner side of the lowest layer. */
int umo_base_count(void);
""",
    "src/base/count.c": """\
/* Counts what the layers above ask for. */
#include "base/base.h"

int umo_base_count(void)
{
    return 1;
}
""",
    "src/base/status.c": """\
/* Names of all results. */
#include <umo/status.h>

const char *umo_status_name(umo_status status)
{
    (void)status;
    return "OK";
}
""",
    "src/mem/buffer.c": """\
/* Buffers, made of what the layer below counts. */
#include <umo/buffer.h>

#include "base/base.h"
#include <stdlib.h>

umo_status umo_buffer_alloc(int size)
{
    return size == umo_base_count() ? UMO_OK : UMO_OK;
}

umo_status umo_buffer_free(void)
{
    free(NULL);
    return UMO_OK;
}
""",
    "src/mem/buffer_test.c": """\
/* A test, of which no library has a part. */
int main(void)
{
    return 0;
}
""",
    "triton/backends/null/null.c": """\
/* A backend that does nothing at all. */
__attribute__((visibility("default"))) int TRITONBACKEND_Initialize(void);
int TRITONBACKEND_Initialize(void)
{
    return 0;
}
""",
}


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        for path, text in GOOD.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def run(self, *command: str) -> None:
        subprocess.run(command, cwd=self.root, check=True)

    def build(self) -> None:
        """The same libraries as CMake makes, without waiting for it."""
        objects = []
        for layer in ("base", "mem"):
            own = []
            for source in sorted((self.root / "src" / layer).rglob("*.c")):
                if source.name.endswith("_test.c"):
                    continue
                target = self.root / "build" / "obj" / source.relative_to(self.root).with_suffix(".c.o")
                target.parent.mkdir(parents=True, exist_ok=True)
                self.run("gcc", *CFLAGS, "-c", str(source), "-o", str(target))
                own.append(str(target))
            # With P members are known by their whole path, without it, as CMake does, by their name alone.
            self.run("ar", "qc", f"build/libumo_{layer}.a", *own)
            objects += own
        (self.root / "build/lib").mkdir()
        core = "build/lib/libumo.so.0"
        self.run("gcc", "-shared", *objects, "-o", core + ".1.0")
        (self.root / core).symlink_to("libumo.so.0.1.0")
        self.run(
            "gcc",
            *CFLAGS,
            "-shared",
            "triton/backends/null/null.c",
            "-o",
            "build/libtriton_null.so",
        )

    def check(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), "--root", str(self.root), *options]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)

    def findings(self, *options: str) -> list[str]:
        """What was found, without the summary; the exit status has to agree with it."""
        ran = self.check(*options)
        lines = ran.stdout.splitlines()[:-1]
        assert ran.stderr == ""
        assert ran.returncode == int(any(": warning: " not in line for line in lines))
        assert all(re.match(r"[\w./-]+:\d+: ", line) for line in lines)
        return lines

    def built_findings(self) -> list[str]:
        self.build()
        return self.findings("--no-format", "build")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_good_tree_has_no_findings(tree: Tree) -> None:
    tree.build()
    assert tree.findings("build") == []
    assert "without libraries" in tree.check().stdout


def test_git_says_which_files_count(tree: Tree) -> None:
    tree.run("git", "init", "-q")
    tree.write(".gitignore", "/ignored/\n")
    tree.write("ignored/bad.c", f"int bad; /* {MARKER} */\n")
    assert tree.findings() == []
    tree.write("new/bad.py", f"# {MARKER}\n")
    assert tree.findings() == [f"new/bad.py:1: words: {MARKER}: open an issue, or leave it out"]


# --- sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("include", ['"mem/mem.h"', "<mem/mem.h>", '"../mem/mem.h"'])
def test_an_include_upwards_is_found(tree: Tree, include: str) -> None:
    tree.write("src/mem/mem.h", "/* The inner side of memory. */\n")
    tree.change(
        "src/base/count.c",
        '#include "base/base.h"\n',
        f'#include "base/base.h"\n#include {include}\n',
    )
    name = include.strip('<>"')
    assert tree.findings("--no-format") == [
        f'src/base/count.c:3: layers: base includes "{name}" of mem, which lies above it'
    ]


def test_an_include_in_a_test_upwards_is_found(tree: Tree) -> None:
    tree.write("src/mem/mem.h", "/* The inner side of memory. */\n")
    tree.write("src/base/x_test.c", '/* A test of the base. */\n/* "*/\n#include "mem/mem.h"\n')
    assert tree.findings("--no-format") == [
        'src/base/x_test.c:3: layers: base includes "mem/mem.h" of mem, which lies above it'
    ]


def test_an_include_from_outside_the_layers_is_found(tree: Tree) -> None:
    tree.change("src/base/count.c", '"base/base.h"', '"kit/kit.h"')
    assert tree.findings("--no-format") == ['src/base/count.c:2: layers: "kit/kit.h" is in no layer']


def test_an_include_in_a_comment_is_none(tree: Tree) -> None:
    tree.change("src/base/count.c", "*/\n", '*/\n/*\n#include "mem/mem.h"\n*/\n')
    assert tree.findings("--no-format") == []


def test_a_folder_that_is_no_layer_is_found(tree: Tree) -> None:
    tree.write("src/extra/x.c", "/* What has no place here. */\n")
    assert tree.findings("--no-format") == ["src/extra/x.c:1: layers: 'extra' is not in src/LAYERS"]


def test_public_headers_in_a_circle_are_found(tree: Tree) -> None:
    tree.change("include/umo/status.h", "typedef", "#include <umo/buffer.h>\ntypedef")
    assert tree.findings("--no-format") == ["include/umo/buffer.h:7: cycles: buffer.h -> status.h -> buffer.h"]


def test_a_public_header_that_sees_the_inside_is_found(tree: Tree) -> None:
    tree.change("include/umo/buffer.h", "<umo/status.h>", '"base/base.h"')
    assert tree.findings("--no-format") == [
        'include/umo/buffer.h:7: layers: a public header includes "base/base.h", write <umo/...>'
    ]


@pytest.mark.parametrize(
    "above",
    [
        "",
        "/* Not for the documentation. */\n",
        "// Not either.\n",
        "/** Of something else. */\n\n",
        "/** Of x. */\nint umo_x;\n",
    ],
)
def test_a_declaration_without_docstring_is_found(tree: Tree, above: str) -> None:
    tree.change("include/umo/status.h", "/** The name of a result. */\n", above)
    line = 8 + above.count("\n")
    assert tree.findings("--no-format") == [
        f"include/umo/status.h:{line}: docs: umo_status_name() has no /** block right above it"
    ]


def test_a_status_without_its_errors_is_found(tree: Tree) -> None:
    tree.change("include/umo/buffer.h", " Errors: as umo_buffer_alloc().", "")
    tree.change("include/umo/buffer.h", " * Errors: none.\n", " * No errors known.\n")
    assert tree.findings("--no-format") == [
        "include/umo/buffer.h:14: docs: umo_buffer_alloc() returns umo_status, but its block has no 'Errors:'",
        "include/umo/buffer.h:17: docs: umo_buffer_free() returns umo_status, but its block has no 'Errors:'",
    ]


def test_errors_may_be_named_with_other_words(tree: Tree) -> None:
    tree.change("include/umo/buffer.h", "Errors: as", "Errors, threads: as")
    assert tree.findings("--no-format") == []


@pytest.mark.parametrize(
    "start",
    ["", "int umo_x;\n", "/* */\n", "/** @file a_name_alone.h */\n", "#pragma once\n"],
)
def test_a_file_without_its_purpose_is_found(tree: Tree, start: str) -> None:
    for path in ("src/mem/x.h", "src/mem/x_test.c", "triton/x.hpp"):
        tree.write(
            path,
            start + "/* Said too late to count. */\n" if start != "" else "int umo_x;\n",
        )
        found = [line for line in tree.findings("--no-format") if line.startswith(path)]
        assert found == [f"{path}:1: headers: the file does not begin with a comment that says what it is for"]


@pytest.mark.parametrize("word", [MARKER, "FIX" + "ME", "X" * 3])
@pytest.mark.parametrize(
    "path",
    ["src/mem/x.h", "tools/x.py", "scripts/x", "CMakeLists.txt", "x.cl", "src/LAYERS"],
)
def test_a_note_about_work_not_done_is_found(tree: Tree, path: str, word: str) -> None:
    tree.write(path, f"/* What this file is for */\n# {word}: later\n" + GOOD.get(path, ""))
    expected = [f"{path}:2: words: {word}: open an issue, or leave it out"] if path != "src/LAYERS" else []
    assert tree.findings("--no-format") == expected


def test_a_template_of_a_name_is_no_note(tree: Tree) -> None:
    tree.change("src/base/count.c", "return 1;", f'return "/tmp/{"X" * 6}"[0];')
    assert tree.findings("--no-format") == []


def test_length_warns_and_does_not_fail(tree: Tree) -> None:
    def body(lines: int) -> str:
        return (
            "/* Functions of all lengths. */\nvoid umo_long(void);\nvoid umo_long(void)\n{\n"
            + "    ;\n" * lines
            + "}\n"
        )

    tree.write("src/mem/x.c", body(68))
    assert tree.findings("--no-format") == []
    tree.write("src/mem/x.c", body(69))
    assert tree.findings("--no-format") == ["src/mem/x.c:3: warning: length: umo_long() has 71 lines; has it two jobs?"]
    tree.write("src/mem/x.c", "/* A file of many lines. */\n" + "int umo_x;\n" * 799)
    assert tree.findings("--no-format") == []
    tree.write("src/mem/x.c", "/* A file of many lines. */\n" + "int umo_x;\n" * 800)
    assert tree.findings("--no-format") == ["src/mem/x.c:1: warning: length: 801 lines; has it two jobs?"]
    assert tree.findings("--no-format", "--no-warnings") == []


@pytest.mark.skipif(shutil.which("clang-format-14") is None, reason="needs clang-format-14")
def test_form_is_checked_unless_left_out(tree: Tree) -> None:
    tree.change("src/base/count.c", "    return 1;", "  return 1 ;")
    (found,) = tree.findings()
    assert re.fullmatch(
        r"src/base/count\.c:[56]: format: this line( and 1 more)? would change, .*",
        found,
    )
    assert tree.findings("--no-format") == []


# --- libraries -------------------------------------------------------------------------------------------------------


def test_a_call_upwards_is_found(tree: Tree) -> None:
    tree.change("src/base/count.c", "int umo_base", "int umo_buffer_free(void);\nint umo_base")
    tree.change("src/base/count.c", "return 1", "return umo_buffer_free()")
    assert tree.built_findings() == [
        "src/base/count.c:4: layers: base needs umo_buffer_free of src/mem/buffer.c, which lies above it"
    ]


def test_a_call_of_what_is_nowhere_is_found(tree: Tree) -> None:
    tree.change("src/base/count.c", "int umo_base", "int umo_nowhere(void);\nint umo_base")
    tree.change("src/base/count.c", "return 1", "return umo_nowhere()")
    assert tree.built_findings() == ["src/base/count.c:4: layers: umo_nowhere is defined in no layer"]


def test_objects_in_a_circle_are_found(tree: Tree) -> None:
    circle = {"a": "b", "b": "c", "c": "a"}
    for name, other in circle.items():
        text = f"/* One of three that need each other. */\nint umo_{name}(void);\nint umo_{other}(void);\n"
        text += f"int umo_{name}(void)\n{{\n    return umo_{other}();\n}}\n"
        tree.write(f"src/mem/{name}.c", text)
    # One that leads into the circle is not part of it.
    tree.write(
        "src/mem/0.c",
        "/* Looks on from outside. */\nint umo_a(void);\nint (*umo_0)(void) = umo_a;\n",
    )
    assert tree.built_findings() == ["src/mem/a.c:3: cycles: a.c -> b.c (umo_b) -> c.c (umo_c) -> a.c (umo_a)"]


def test_a_chain_of_objects_is_no_circle(tree: Tree) -> None:
    for name, other in {"a": "b", "b": "c", "c": "buffer_free"}.items():
        text = f"/* One link of a chain. */\nint umo_{other}(void);\nint umo_{name}(void);\n"
        text += f"int umo_{name}(void)\n{{\n    return umo_{other}();\n}}\n"
        tree.write(f"src/mem/{name}.c", text)
    assert tree.built_findings() == []


def test_two_objects_of_one_name_stay_apart(tree: Tree) -> None:
    for folder, other in {"x": "y", "y": "x"}.items():
        text = f"/* One of two files of one name. */\nint umo_{folder}(void);\nint umo_{other}(void);\n"
        text += f"int umo_{folder}(void)\n{{\n    return umo_{other}();\n}}\n"
        tree.write(f"src/mem/{folder}/same.c", text)
    assert tree.built_findings() == ["src/mem/x/same.c:3: cycles: same.c -> same.c (umo_y) -> same.c (umo_x)"]


@pytest.mark.parametrize(
    "declaration",
    ["int loose(void)\n{\n    return 0;\n}", "int loose;", "const int loose = 1;"],
)
def test_a_global_symbol_without_prefix_is_found(tree: Tree, declaration: str) -> None:
    tree.write("src/mem/x.c", f"/* What other libraries may call, too. */\n{declaration}\n")
    assert tree.built_findings() == [
        "src/mem/x.c:2: symbols: loose is global: make it static or name it umo_*",
    ]


def test_an_export_without_prefix_is_found(tree: Tree) -> None:
    tree.write(
        "src/mem/x.c",
        '/* What other libraries do see. */\n__attribute__((visibility("default"))) int loose;\n',
    )
    assert tree.built_findings() == [
        "build/lib/libumo.so.0.1.0:1: symbols: exports loose, which does not begin with umo_",
        "src/mem/x.c:2: symbols: loose is global: make it static or name it umo_*",
    ]


@pytest.mark.parametrize("symbol", ["umo_null", "_ZN4null4makeEv", "TRITONSERVER_Null"])
def test_a_backend_that_exports_more_is_found(tree: Tree, symbol: str) -> None:
    tree.change(
        "triton/backends/null/null.c",
        "all. */\n",
        f'all. */\n__attribute__((visibility("default"))) int {symbol};\n',
    )
    assert tree.built_findings() == [
        f"build/libtriton_null.so:1: symbols: exports {symbol}, which does not begin with TRITONBACKEND_"
    ]


def test_a_backend_that_exports_nothing_is_found(tree: Tree) -> None:
    tree.change("triton/backends/null/null.c", '__attribute__((visibility("default"))) ', "")
    assert tree.built_findings() == ["build/libtriton_null.so:1: symbols: exports no TRITONBACKEND_*"]


def test_a_build_directory_without_libraries_is_no_success(tree: Tree) -> None:
    (tree.root / "build").mkdir()
    ran = tree.check("--no-format", "build")
    assert ran.returncode == 2
    assert "libumo_base.a" in ran.stderr
    assert tree.check("--no-format", "nowhere").returncode == 2


def test_a_tree_without_layers_is_no_success(tree: Tree) -> None:
    (tree.root / "src/LAYERS").unlink()
    ran = tree.check("--no-format")
    assert ran.returncode == 2
    assert "src/LAYERS" in ran.stderr
