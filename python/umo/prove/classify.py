"""Which part of a server a library belongs to, told by its name.

server    the tritonserver program and its library
backend   the backend's own code: libtriton_<name>.so, libumo, the Python backend's stub
engine    what computes on the backend's behalf: ONNX Runtime, PoCL, CUDA, code made at run time, ...
runtime   the C++ and C libraries, where the caller behind them could not be told
other     everything else
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ROLES = ("server", "backend", "engine", "runtime", "other")

# The first match decides. Matched against the whole path, case not minded.
DEFAULT_RULES: tuple[tuple[str, str], ...] = (
    ("server", r"(^|/)(tritonserver|libtritonserver[^/]*\.so[^/]*|inproc_infer)$"),
    ("engine", r"(^|/)libonnxruntime|(^|/)libopenvino|(^|/)libtensorflow|(^|/)libtorch|(^|/)libc10|(^|/)libggml"),
    ("engine", r"(^|/)libpocl|/pocl/|/kcache/|(^|/)libOpenCL|(^|/)libLLVM|(^|/)libclang|(^|/)libmkl|(^|/)libdnnl"),
    (
        "engine",
        r"(^|/)libcu(da|dart|blas|blaslt|dnn|fft|rand|sparse|solver|tensor|pti)[^a-z]|(^|/)libnv|(^|/)libLiteRt|(^|/)libexecutorch|(^|/)libmlx",
    ),
    ("engine", r"^\[no object\]$|^\?\?\?$|(^|/)libpython|/numpy/|\.cpython-[^/]*\.so$"),
    ("backend", r"(^|/)libtriton_[^/]*\.so[^/]*$|(^|/)libumo[^/]*\.so[^/]*$|(^|/)triton_python_backend_stub$"),
    ("runtime", r"(^|/)(libstdc\+\+|libc\+\+|libgcc_s|libc\.so|libc-|libm\.so|ld-linux)"),
)


class Classifier:
    """Names the role of a library; rules given here come before the default ones."""

    def __init__(self, rules: Sequence[tuple[str, str]] = ()) -> None:
        self._rules = []
        for role, pattern in (*rules, *DEFAULT_RULES):
            if role not in ROLES:
                raise ValueError(f"unknown role {role!r}: one of {', '.join(ROLES)}")
            try:
                self._rules.append((role, re.compile(pattern, re.IGNORECASE)))
            except re.error as error:
                raise ValueError(f"bad pattern {pattern!r} for role {role}: {error}") from error

    def role(self, library: str, via: str = "") -> str:
        """The role of `library`; where a run-time library worked for `via`, the role of that one."""
        role = self._match(library)
        return self._match(via) if role == "runtime" and via else role

    def _match(self, library: str) -> str:
        for role, pattern in self._rules:
            if pattern.search(library):
                return role
        return "other"
