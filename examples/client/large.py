"""Sends tensors of 16 MiB to the model relu: python large.py [URL] [REQUESTS]"""

import sys

import numpy as np

import umo.client
import umo.client.http as httpclient

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:8000"
requests = int(sys.argv[2]) if len(sys.argv) > 2 else 20

with httpclient.InferenceServerClient(url) as client:
    # An array that lies where the server reads it: what is written to it is sent without a copy.
    data = umo.client.empty(client, "X", (1, 4 << 20), np.float32)
    for i in range(requests):
        data[...] = i
        tensor = httpclient.InferInput("X", data.shape, "FP32")
        tensor.set_data_from_numpy(data)
        answer = client.infer("relu", [tensor]).as_numpy("Y")
        assert answer[0, 0] == answer[0, -1] == i
    print(f"{requests} requests of {data.nbytes >> 20} MiB each way")
    print(client.transport)
