"""Everything that tritonclient offers is offered by umo.client, with the same signature: by inspection, for the version
that is installed and for the one of perf_analyzer."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tritonclient

MODULES = ("http", "grpc", "http.aio", "grpc.aio", "http.auth", "grpc.auth", "http.aio.auth", "grpc.aio.auth")
ROOT = Path(__file__).resolve().parents[2]
OLDER = ROOT / ".venv" / "perf"
CLASSES = ("InferenceServerClient", "InferInput", "InferRequestedOutput", "InferResult")


def pair(name: str) -> tuple[Any, Any]:
    return importlib.import_module(f"tritonclient.{name}"), importlib.import_module(f"umo.client.{name}")


def public(thing: Any) -> list[str]:
    return [name for name in dir(thing) if not name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_every_name_of_the_module_is_there(name: str) -> None:
    theirs, ours = pair(name)
    assert len(public(theirs)) > 0
    for one in public(theirs):
        assert getattr(ours, one, None) is not None, one
    everything: dict[str, Any] = {}
    exec(f"from tritonclient.{name} import *", everything)
    mine: dict[str, Any] = {}
    exec(f"from umo.client.{name} import *", mine)
    assert set(everything) - set(mine) - {"__builtins__"} == set()


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", MODULES[:4])
def test_every_method_has_its_signature(name: str, kind: str) -> None:
    theirs, ours = (getattr(module, kind, None) for module in pair(name))
    assert theirs is not None and ours is not None
    assert ours is not theirs and issubclass(ours, theirs) and ours.__module__.startswith("umo.client")
    assert len(public(theirs)) > 0
    for method in [*public(theirs), "__init__"]:
        original, own = inspect.getattr_static(theirs, method), inspect.getattr_static(ours, method)
        assert type(own) is type(original), method
        assert callable(getattr(ours, method)) == callable(getattr(theirs, method)), method
        if (kind, method) == ("InferResult", "__init__"):
            continue  # made by the clients alone; it takes one argument more
        assert inspect.signature(getattr(ours, method)) == inspect.signature(getattr(theirs, method)), method
        assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(original), method
    for special in ("__enter__", "__exit__", "__aenter__", "__aexit__"):
        assert hasattr(ours, special) == hasattr(theirs, special)


@pytest.mark.parametrize("name", MODULES[:4])
def test_the_parameters_that_are_written_out_are_the_originals(name: str) -> None:
    """A signature is copied from the original: the parameters that are really there must be the same ones."""
    theirs, ours = (module.InferenceServerClient for module in pair(name))
    for method, own in vars(ours).items():
        if not inspect.isfunction(own) or not hasattr(own, "__wrapped__"):
            continue
        original = list(inspect.signature(getattr(theirs, method)).parameters.values())
        really = inspect.signature(own, follow_wrapped=False).parameters.values()
        for at, parameter in enumerate(really):
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                break
            assert (parameter.name, parameter.default) == (original[at].name, original[at].default), method


@pytest.mark.parametrize("name", MODULES[:4])
def test_headers_are_found_where_they_stand(name: str) -> None:
    """infer() passes what follows sequence_id on as it is, and takes the headers out by their place."""
    theirs, _ = pair(name)
    place = 5 if name.startswith("grpc") else 4
    for method in ("infer", "async_infer"):
        if hasattr(theirs.InferenceServerClient, method):
            names = list(inspect.signature(getattr(theirs.InferenceServerClient, method)).parameters)
            assert names.index("headers") - names.index("sequence_id") - 1 == place


def test_an_input_of_ours_is_one_of_the_originals() -> None:
    """Code that hands our objects to the original's client works: by themselves they say what the original's say."""
    import numpy as np

    for name in ("http", "grpc"):
        theirs, ours = pair(name)
        for kind, value in (("FP32", np.arange(6, dtype="f4")), ("BYTES", np.array([b"a", b"bcd"], dtype=object))):
            said = []
            for module in (theirs, ours):
                one = module.InferInput("IN", list(value.shape), kind)
                assert one.set_data_from_numpy(value) is one
                data = one._get_content() if name == "grpc" else one._get_binary_data()
                said.append((str(one._get_tensor()), data, one.name(), one.datatype(), list(one.shape())))
            assert said[0] == said[1]


@pytest.mark.parametrize("name", ["http", "grpc"])
def test_a_mistake_has_the_originals_words_and_leaves_what_was_there(name: str) -> None:
    import numpy as np

    theirs, ours = pair(name)
    good = np.arange(4, dtype="f4")
    for bad in (np.arange(4, dtype="f8"), np.arange(5, dtype="f4"), [1.0, 2.0], np.zeros((2, 2), "f4"), None):
        words, data = [], []
        for module in (theirs, ours):
            one = module.InferInput("IN", [4], "FP32").set_data_from_numpy(good)
            with pytest.raises(theirs.InferenceServerException) as caught:
                one.set_data_from_numpy(bad)
            words.append(str(caught.value))
            data.append(one._get_content() if name == "grpc" else one._get_binary_data())
        assert words[0] == words[1] and data[0] == data[1] == good.tobytes()


def test_it_all_holds_for_the_version_of_perf_analyzer() -> None:
    if tritonclient.__path__[0].startswith(str(OLDER)):
        return
    if not (OLDER / "tritonclient").is_dir():
        pytest.skip("scripts/setup has not put tritonclient 2.51 into .venv/perf")
    paths = os.pathsep.join([str(OLDER), str(ROOT / "python")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout[-3000:]
    shows = subprocess.run(
        [sys.executable, "-c", "import tritonclient; print(tritonclient.__path__[0])"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert shows.stdout.startswith(str(OLDER)), "the other version was tested twice"
