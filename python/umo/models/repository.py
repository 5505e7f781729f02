"""Fills a model repository from examples/models: each model twice, with unified memory on and off.

The two variants differ in one word of one parameter, so that a comparison compares nothing else. The large files exist
once and are linked.

    python -m umo.models.repository build/models
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from umo.models import big, minilm, onnx_graph
from umo.paths import source_tree

ON = '{"enable": true}'
OFF = '{"enable": false}'
VARIANTS = {"on": ON, "off": OFF}

# What makes a model file, and the sources that it depends on (a change there makes it anew).
_MAKERS: dict[str, Callable[[Path], Path]] = {
    "minilm": minilm.write,
    "big_normalise": lambda path: onnx_graph.save(big.normalise(), path),
}
MODELS = ("image_prep", "minilm", "big_normalise")


def _sources_hash() -> str:
    digest = hashlib.sha256()
    for module in (minilm, big, onnx_graph):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]


def examples_folder() -> Path:
    """examples/models of this checkout."""
    root = source_tree()
    if root is None:
        raise FileNotFoundError(
            "the example models are in the source tree of umo; this package was installed without it"
        )
    return root / "examples" / "models"


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def variant_config(text: str, variant: str) -> str:
    """A configuration with unified memory on or off. Raises ValueError when it has no such parameter."""
    if text.count(ON) != 1:
        raise ValueError(f"the configuration must contain {ON} exactly once")
    return text.replace(ON, VARIANTS[variant])


def write_repository(
    folder: Path, models: Iterable[str] = MODELS, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Writes NAME_on and NAME_off for each model into `folder`; what is there and current is left as it is."""
    examples = examples_folder()
    cache = folder.parent / "model-files" / _sources_hash()
    for name in models:
        example = examples / name
        files = [path for path in (example / "1").iterdir()] if (example / "1").is_dir() else []
        if name in _MAKERS:
            made = cache / f"{name}.onnx"
            if not made.exists():
                say(f"building {name}.onnx")
                _MAKERS[name](made)
        for variant in VARIANTS:
            target = folder / f"{name}_{variant}"
            (target / "1").mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copyfile(file, target / "1" / file.name)
            if name in _MAKERS:
                _link(made, target / "1" / "model.onnx")
            config = (example / "config.pbtxt").read_text()
            (target / "config.pbtxt").write_text(variant_config(config, variant))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="fills a model repository from examples/models")
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}")
    args = parser.parse_args()
    write_repository(args.folder, args.models, print)


if __name__ == "__main__":
    main()
