"""A small model repository that comes with the package, so that a new user has something to serve and to ask.

It is copied before it is served: what a user looks at and changes is theirs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..server import TritonServer

MODEL = "iris"
_HERE = Path(__file__).resolve().parent


def write(folder: Path) -> Path:
    """Puts the example's model into a repository, unless it has one of that name. Returns the file with its request."""
    target = folder / MODEL
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{MODEL}.part"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(_HERE / MODEL, beside)
        beside.rename(target)
    return target / "request.json"


def curl(http_url: str, request: Path) -> str:
    """The command line that asks a server."""
    return f"curl -s {http_url}/v2/models/{MODEL}/infer -d @{request}"


def ask(server: TritonServer, request: Path) -> dict[str, Any]:
    """The server's answer to the request in the file, and the output's values by name. Uses umo's client."""
    import numpy as np

    from ..client import http

    said = json.loads(request.read_text())["inputs"][0]
    with http.InferenceServerClient(server.http_url) as client:
        lengths = http.InferInput(said["name"], said["shape"], said["datatype"])
        lengths.set_data_from_numpy(np.array(said["data"], np.float32).reshape(said["shape"]))
        answer = client.infer(MODEL, [lengths])
        species, probability = answer.as_numpy("SPECIES"), answer.as_numpy("PROBABILITY")
        return {
            "model": MODEL,
            "lengths": said["data"],
            "species": species.reshape(-1)[0].decode(),
            "probability": [round(float(p), 6) for p in probability.reshape(-1)],
        }
