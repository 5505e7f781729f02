"""Bodies of umo.client's HTTP requests: what tritonclient sends, with the tensors at a multiple of 64 bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tritonclient.http as original

import umo.client.http as client
from umo.client.http import body


def given(module, *arrays: np.ndarray, binary: bool = True) -> list:
    made = []
    for i, array in enumerate(arrays):
        made.append(module.InferInput(f"IN{i}", array.shape, "FP32"))
        made[-1].set_data_from_numpy(array, binary_data=binary)
    return made


class _Sent(Exception):
    pass


def sent(monkeypatch: pytest.MonkeyPatch, module, inputs: list, **how) -> tuple[bytes, dict]:
    """What infer() hands to the network, and its headers."""
    monkeypatch.setenv("UMO_CLIENT_SHARED_MEMORY", "0")

    def post(self, request_uri, request_body, headers, query_params):
        raise _Sent(request_body, headers)

    monkeypatch.setattr(module.InferenceServerClient, "_post", post)
    with module.InferenceServerClient("127.0.0.1:1") as asks, pytest.raises(_Sent) as raised:
        asks.infer("m", inputs, **how)
    return raised.value.args


@pytest.mark.parametrize("identity", ["", "r", "ä" * 7, "r" * 63])
def test_a_body_says_the_same_as_tritonclients(monkeypatch, identity) -> None:
    arrays = [np.arange(5, dtype=np.float32), np.ones((2, 16), np.float32)]
    theirs, their_headers = sent(monkeypatch, original, given(original, *arrays), request_id=identity)
    ours, our_headers = sent(monkeypatch, client, given(client, *arrays), request_id=identity)
    head = our_headers.pop("Inference-Header-Content-Length")
    their_head = their_headers.pop("Inference-Header-Content-Length")
    assert head % 64 == 0 and head - their_head < 64
    assert json.loads(ours[:head]) == json.loads(theirs[:their_head])
    assert ours[head:] == theirs[their_head:] == b"".join(array.tobytes() for array in arrays)
    assert our_headers == their_headers


def test_a_body_without_tensors_is_tritonclients(monkeypatch) -> None:
    array = np.arange(3, dtype=np.float32)
    theirs = sent(monkeypatch, original, given(original, array, binary=False))
    assert sent(monkeypatch, client, given(client, array, binary=False)) == theirs


def test_inputs_of_tritonclients_own_travel_too(monkeypatch) -> None:
    array = np.arange(64, dtype=np.float32)
    ours, headers = sent(monkeypatch, client, given(original, array))
    assert ours[headers["Inference-Header-Content-Length"] :] == array.tobytes()


def test_a_method_that_makes_its_body_otherwise_is_left_alone() -> None:
    def infer(self: object) -> None:
        """Of another version."""

    assert body.aligns(infer) is infer
    assert body.aligns(len) is len
    assert client._infer is not original.InferenceServerClient.infer
