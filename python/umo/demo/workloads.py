"""What is asked in the demonstration, and what the right answer is.

The right answer always comes from the engine alone on private memory (ONNX Runtime from Python), or, for the compute
kernel, from NumPy: never from the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umo.models import big, minilm
from umo.models.photo import cached_photo

QUERY = "How do I make a good cup of coffee?"
SENTENCES = (
    "Grind the beans just before brewing and use water a little below boiling.",
    "The espresso machine needs to be descaled every two months.",
    "Tea leaves should steep for about four minutes.",
    "The train to the coast leaves at half past eight.",
    "A new bridge was opened across the river on Sunday.",
    "Photosynthesis turns light into chemical energy.",
    "The memory of a graphics card is faster than that of the processor.",
    "My neighbour's cat sleeps on the warm roof of the car.",
    "Interest rates were raised for the third time this year.",
    "She tuned her violin before the concert began.",
    "The recipe calls for two eggs and a spoon of flour.",
    "Volcanoes are common where two plates of the crust meet.",
    "He scored twice in the last ten minutes of the match.",
    "Paint dries faster in a room with moving air.",
    "The library lends books for four weeks.",
)


@dataclass(frozen=True)
class Workload:
    """One model, one request, one right answer.

    inputs     by name, C-contiguous
    expected   by output name
    tolerance  the largest absolute difference to `expected`; 0 asks for the same bits
    """

    model: str
    title: str
    batch: int
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    tolerance: float

    @property
    def input_bytes(self) -> int:
        """Of all inputs together."""
        return sum(array.nbytes for array in self.inputs.values())

    @property
    def output_bytes(self) -> int:
        """Of all outputs together."""
        return sum(array.nbytes for array in self.expected.values())

    def difference(self, outputs: dict[str, np.ndarray]) -> float:
        """The largest absolute difference to the right answer; infinite for a wrong shape, type or not-a-number."""
        worst = 0.0
        for name, expected in self.expected.items():
            got = outputs.get(name)
            if got is None or got.shape != expected.shape or got.dtype != expected.dtype:
                return float("inf")
            if np.array_equal(got, expected):
                continue
            difference = float(np.abs(got - expected).max())
            worst = max(worst, difference if np.isfinite(difference) else float("inf"))
        return worst


def _engine_alone(model_file: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model_file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def prepared_by_numpy(image: np.ndarray) -> np.ndarray:
    """What the kernel image_prep should make of uint8 [height, width, 3]: float32 [3, height, width]."""
    # A table of the 256 values of each channel: as exact as float32 gets, and quick.
    values = np.arange(256, dtype=np.float64) / 255
    tables = ((values[None, :] - big.MEAN[:, None]) / big.STD[:, None]).astype(np.float32)
    return np.stack([tables[channel][image[:, :, channel]] for channel in range(3)])


def denormalised(tensor: np.ndarray) -> np.ndarray:
    """The picture in a tensor: float32 [3, height, width] -> uint8 [height, width, 3]."""
    picture = tensor.transpose(1, 2, 0) * big.STD + big.MEAN
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def sentence_tokens() -> minilm.Tokens:
    """The query and the sentences, padded to 32 tokens."""
    return minilm.tokenize([QUERY, *SENTENCES], 32)


def build_workloads(repository: Path, cache: Path, quick: bool, say: Callable[[str], None]) -> list[Workload]:
    """All three; `quick` takes smaller tensors."""
    width, height = (1000, 750) if quick else (4000, 3000)
    say(f"the photograph, {width} x {height}")
    image = cached_photo(cache, width, height)
    workloads = [
        Workload(
            "image_prep",
            f"photograph {width}x{height} -> tensor, OpenCL kernel",
            1,
            {"IMAGE": image},
            {"TENSOR": prepared_by_numpy(image)},
            1e-5,
        )
    ]
    say("MiniLM alone, for the right answer")
    tokens = sentence_tokens().feeds()
    workloads.append(
        Workload(
            "minilm",
            f"{1 + len(SENTENCES)} sentences of 32 tokens -> vectors, ONNX Runtime",
            1 + len(SENTENCES),
            tokens,
            _engine_alone(repository / "minilm_on" / "1" / "model.onnx", tokens),
            1e-5,
        )
    )
    batch = 1 if quick else 8
    say(f"{batch} frames of 1920 x 1080 floats alone, for the right answer")
    frames = {"IMAGE": big.random_images(batch)}
    workloads.append(
        Workload(
            "big_normalise",
            f"{batch} frames 1920x1080x3 floats -> planes, ONNX Runtime",
            batch,
            frames,
            _engine_alone(repository / "big_normalise_on" / "1" / "model.onnx", frames),
            0.0,
        )
    )
    return workloads
