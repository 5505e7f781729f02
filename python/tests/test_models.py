"""The shared models compute what they say. MiniLM is compared with a second implementation, not with a graph."""

import numpy as np
import onnxruntime
import pytest

from umo.models import big, minilm, photo, small

SENTENCES = [
    "This is an offline sentence embedding",
    "A man is eating food.",
    "Somebody is having lunch.",
    "The stock market fell sharply today, and nobody was surprised by it.",
]


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def embed_one(weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """One sentence without padding, in float64, head by head: as the architecture's paper words it."""
    from scipy.special import erf

    w = {name: tensor.astype(np.float64) for name, tensor in weights.items() if tensor.dtype == np.float32}

    def norm(rows, name):
        deviation = rows - rows.mean(1, keepdims=True)
        variance = (deviation**2).mean(1, keepdims=True)
        return deviation / np.sqrt(variance + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(rows, name):
        return np.einsum("ti,oi->to", rows, w[f"{name}.weight"]) + w[f"{name}.bias"]

    embeddings = w["embeddings.word_embeddings.weight"][ids]
    embeddings = embeddings + w["embeddings.position_embeddings.weight"][: len(ids)]
    rows = norm(embeddings + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(6):
        at = f"encoder.layer.{layer}"
        query, key, value = (linear(rows, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            scores = query[:, part] @ key[:, part].T / 32**0.5
            chances = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(chances / chances.sum(1, keepdims=True) @ value[:, part])
        attended = linear(np.concatenate(heads, 1), f"{at}.attention.output.dense")
        rows = norm(attended + rows, f"{at}.attention.output.LayerNorm")
        wide = linear(rows, f"{at}.intermediate.dense")
        wide = wide * (1 + erf(wide / 2**0.5)) / 2
        rows = norm(linear(wide, f"{at}.output.dense") + rows, f"{at}.output.LayerNorm")
    mean = rows.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def embeddings():
    return run(minilm.build(), minilm.tokenize(SENTENCES).feeds())[0]


def test_minilm_agrees_with_a_second_implementation(embeddings):
    weights = minilm.read_safetensors(minilm.package_folder() / "model.safetensors")
    for sentence, row in zip(SENTENCES, embeddings, strict=True):
        expected = embed_one(weights, minilm.tokenize([sentence]).input_ids[0])
        assert np.abs(row - expected).max() <= 1e-5


def test_minilm_finds_the_same_meaning(embeddings):
    likeness = embeddings @ embeddings.T
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    assert np.argsort(likeness[1])[-2] == 2


def test_tokens_are_those_of_the_vocabulary():
    tokens = minilm.tokenize(SENTENCES[:1], 16)
    expected = [101, 2023, 2003, 2019, 2125, 4179, 6251, 7861, 8270, 4667, 102]
    assert tokens.input_ids.tolist() == [expected + [0] * 5]
    assert tokens.attention_mask.tolist() == [[1] * 11 + [0] * 5]
    assert minilm.tokenize(["word " * 300]).input_ids.shape == (1, minilm.MAX_TOKENS)


def test_normalise_is_what_numpy_computes():
    images = big.random_images(2, 6, 5)
    expected = ((images - big.MEAN) / big.STD).transpose(0, 3, 1, 2)
    assert np.array_equal(run(big.normalise(6, 5), {"IMAGE": images})[0], expected)


def test_relu_is_what_numpy_computes():
    x = np.linspace(-1, 1, 101, dtype=np.float32)
    assert np.array_equal(run(big.relu(), {"X": x})[0], np.maximum(x, 0))


@pytest.mark.parametrize("name", small.ALL)
def test_small_model_loads(name):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    onnxruntime.InferenceSession(small.ALL[name]().SerializeToString(), options)


def test_small_models_compute():
    x = np.array([0, 1, 0, -2], np.float32)
    assert run(small.nonzero(), {"X": x})[0].tolist() == [[1, 3]]
    assert run(small.gather(), {"DATA": x, "INDEX": np.array([3, 1], np.int64)})[0].tolist() == [-2, 1]
    assert run(small.scalar(), {"X": x})[0] == -1
    assert run(small.optional_scale(), {"X": x})[0].tolist() == [0, 2, 0, -4]
    assert run(small.optional_scale(), {"X": x, "SCALE": np.array([3], np.float32)})[0].tolist() == [0, 3, 0, -6]
    assert run(small.upper(), {"TEXT": np.array(["abc"], object)})[0].tolist() == ["ABC"]


def test_photo_has_its_size_and_content():
    picture = photo.photo(400, 300)
    assert picture.shape == (300, 400, 3) and picture.dtype == np.uint8
    assert picture.std() > 30
