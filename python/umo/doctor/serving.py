"""What is installed: umo's own parts, the server, the engines, the client's transports."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .. import paths
from . import Check, Finding


def library() -> Iterator[Finding]:
    from .. import __version__

    area = "umo"
    try:
        path = paths.library()
        opened = ctypes.CDLL(str(path))
    except OSError as error:
        text, _, remedy = str(error).partition("; ")
        yield Finding(area, "library", "fault", text, "nothing of umo works", remedy or "install umo again")
        return
    opened.umo_version.restype = ctypes.c_char_p
    version = opened.umo_version().decode()
    if version != __version__:
        yield Finding(
            area,
            "library",
            "fault",
            f"{version}, and the Python package is {__version__}",
            "two installations are mixed",
            "pip install --force-reinstall umo, or run `make build` again",
        )
    else:
        where = "from this package" if paths.installed() else "built from the source tree"
        yield Finding(area, "library", "good", f"libumo {version}, {where}")


def backends() -> Iterator[Finding]:
    area = "umo"
    try:
        folder = paths.backends()
    except FileNotFoundError as error:
        text, _, remedy = str(error).partition("; ")
        yield Finding(area, "backends", "fault", text, "no model can be served", remedy or "install umo again")
        return
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if any(entry.glob("libtriton_*.so")) or any(entry.glob("libtriton_*.dylib"))
    )
    if names:
        yield Finding(area, "backends", "good", ", ".join(names), "what stands behind `backend:` in a model's config")
    else:
        yield Finding(area, "backends", "fault", "none", "no model can be served", "install umo again, or `make build`")


LIBRARY: list[Check] = [library, backends]


def server() -> Iterator[Finding]:
    from ..server import ServerError, TritonServer, find_tritonserver, server_options

    area = "serving"
    try:
        binary = find_tritonserver()
    except ServerError as error:
        yield Finding(
            area,
            "server",
            "missing",
            str(error),
            "`umo serve` has nothing to start",
            "pip install 'umo[server]', or UMO_TRITONSERVER=PATH of one",
        )
        return
    try:
        options = server_options(binary)
    except (ServerError, OSError) as error:
        yield Finding(
            area,
            "server",
            "fault",
            str(error).splitlines()[0][:200],
            "it most likely lacks a library, or is something else",
            f"ldd {binary} names a library that is not found",
        )
        return
    # Only a server that runs says which one it is.
    try:
        with (
            tempfile.TemporaryDirectory() as empty,
            TritonServer(empty) as running,
            urllib.request.urlopen(f"http://{running.http_url}/v2", timeout=5) as answer,
        ):
            version = json.load(answer)["version"]
    except (ServerError, OSError, ValueError, KeyError) as error:
        words = str(error).splitlines()
        yield Finding(
            area,
            "server",
            "fault",
            f"tritonserver does not come up: {words[0] if words else type(error).__name__}",
            "`umo serve` would not either",
            f"run {binary} --model-repository=DIR and read what it says",
        )
        return
    yield Finding(area, "server", "good", f"tritonserver {version}, started and stopped", str(binary))
    if "--allow-client-shm" in options:
        yield Finding(
            area,
            "clients' shared memory",
            "note",
            "off unless the server is told otherwise",
            "without it every tensor goes through the transport",
            "--allow-client-shm=true, which `umo serve` passes",
        )


def engines() -> Iterator[Finding]:
    from ..server import find_onnxruntime

    area = "serving"
    named = os.environ.get("UMO_ONNXRUNTIME")
    path = Path(named) if named else find_onnxruntime()
    if path is None:
        yield Finding(
            area,
            "ONNX Runtime",
            "missing",
            "not installed",
            "umo_onnxruntime loads no model; umo_kernel needs none",
            "pip install onnxruntime, or UMO_ONNXRUNTIME=PATH of its library",
        )
        return
    if path.is_dir():
        path = next(iter(sorted(path.glob("libonnxruntime.*"))), path)
    try:
        base = ctypes.CDLL(str(path)).OrtGetApiBase
    except (OSError, AttributeError) as error:
        yield Finding(
            area,
            "ONNX Runtime",
            "fault",
            f"{path.name} cannot be used: {error}",
            "umo_onnxruntime loads no model",
            "unset UMO_ONNXRUNTIME, or point it to a library of ONNX Runtime",
        )
        return
    # Of the base, the second function says the version.
    base.restype = ctypes.POINTER(ctypes.CFUNCTYPE(ctypes.c_char_p))
    yield Finding(area, "ONNX Runtime", "good", base()[1]().decode(), str(path))


def clients() -> Iterator[Finding]:
    area = "serving"
    try:
        version = metadata.version("tritonclient")
    except metadata.PackageNotFoundError:
        yield Finding(
            area,
            "client",
            "missing",
            "tritonclient is not installed",
            "`umo.client` stands on it",
            "pip install 'umo[client]'",
        )
        return
    faces = [name for name, needs in (("http", "gevent"), ("grpc", "grpc")) if importlib.util.find_spec(needs)]
    if faces:
        yield Finding(
            area, "client", "good", f"tritonclient {version} ({', '.join(faces)})", "what umo.client stands on"
        )
    else:
        yield Finding(
            area,
            "client",
            "missing",
            f"tritonclient {version} without a transport",
            "`umo.client` stands on them",
            "pip install 'tritonclient[http,grpc]'",
        )


CHECKS: list[Check] = [server, engines, clients]
