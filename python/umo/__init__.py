"""umo: one memory for CPU and GPU under Triton Inference Server.

The memory API, a thin face over libumo (docs/python.md):

    ctx = umo.Context()                          devices, budgets, counters
    tensor = umo.Tensor.wrap(array)              an array's own memory, never a copy
    tensor = ctx.empty((2, 3), "float32")        memory where it is used
    numpy.asarray(tensor), torch.from_dlpack(tensor), memoryview(tensor)

umo.profile  the flight recorder
umo.client   Triton clients whose tensors are not copied
umo.paths    where the library, the headers and the backends are
umo.server   starts the real server on free loopback ports and stops it without remains
umo.models   models that the demonstration, the tests and the benchmarks share
umo.demo     the demonstration (``python -m umo.demo``)
umo.prove    how many bytes a backend copies, by independent witnesses

Names are loaded when they are first used, so that importing umo costs nothing but this file.
"""

TYPE_CHECKING = False  # to a checker of types it is true; importing typing costs more than all of this

if TYPE_CHECKING:
    from umo import profile as profile
    from umo._core import (
        Buffer,
        BusyError,
        Context,
        Device,
        DeviceError,
        InvalidError,
        LimitError,
        NotFoundError,
        OutOfMemoryError,
        Pool,
        RefusedError,
        Scope,
        SystemCallError,
        Tensor,
        TimeLimitError,
        UmoError,
        UnsupportedError,
        View,
        Weights,
    )

__version__ = "0.1.0"

__all__ = [
    "Buffer",
    "BusyError",
    "Context",
    "Device",
    "DeviceError",
    "InvalidError",
    "LimitError",
    "NotFoundError",
    "OutOfMemoryError",
    "Pool",
    "RefusedError",
    "Scope",
    "SystemCallError",
    "Tensor",
    "TimeLimitError",
    "UmoError",
    "UnsupportedError",
    "View",
    "Weights",
    "__version__",
    "profile",
]


def _find_core() -> None:
    """In a source tree the extension is in the build folder, as umo.paths has it; this costs one look at a folder."""
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    if os.path.isdir(os.path.join(here, "lib")):
        return  # an installed package has its own
    root = os.environ.get("UMO_ROOT") or os.path.dirname(os.path.dirname(here))
    build = os.environ.get("UMO_BUILD") or os.path.join(root, "build", "release")
    __path__.append(os.path.join(build, "python", "umo"))


_find_core()


def _load_core() -> object:
    from importlib import import_module

    try:
        return import_module("umo._core")
    except ModuleNotFoundError as missing:
        if missing.name != "umo._core":
            raise
        raise ImportError(
            f"umo._core is in none of {', '.join(__path__)}: run `make build`, or install a wheel of umo "
            "(docs/install.md)",
            name="umo._core",
        ) from None


def __getattr__(name: str) -> object:
    if name == "profile":
        from importlib import import_module

        return import_module("umo.profile")
    if name != "_core" and name not in __all__:
        raise AttributeError(f"module 'umo' has no attribute {name!r}")
    core = _load_core()
    value = core if name == "_core" else getattr(core, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
