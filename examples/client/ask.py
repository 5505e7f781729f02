"""Asks the model of `umo example` with umo's client: python ask.py [URL]

For tritonclient it is the same but for the import. How tensors travel is the client's affair: `client.transport`.
"""

import sys

import numpy as np

import umo.client.http as httpclient  # import tritonclient.http as httpclient

LENGTHS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], dtype=np.float32)

with httpclient.InferenceServerClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8000") as client:
    lengths = httpclient.InferInput("LENGTHS", LENGTHS.shape, "FP32")
    lengths.set_data_from_numpy(LENGTHS)
    answer = client.infer("iris", [lengths])
    for row, species in zip(LENGTHS, answer.as_numpy("SPECIES").reshape(-1), strict=True):
        print(*row, species.decode())
    print(client.transport)
