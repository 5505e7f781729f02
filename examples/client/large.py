"""Sends 16 MB tensors through a model that answers with what it gets: python large.py [URL] [MODEL] [REQUESTS]"""

import sys

import numpy as np

import umo.client
import umo.client.http as httpclient

url, model, requests = (sys.argv[1:] + ["localhost:8000", "pass", "20"][len(sys.argv) - 1 :])[:3]

with httpclient.InferenceServerClient(url) as client:
    # An array that lies where the server will read it: what is written here is sent without a copy.
    data = umo.client.empty(umo.client.Model(client, model), "INPUT", (1, 4 << 20), np.float32)
    for i in range(int(requests)):
        data[...] = i
        tensor = httpclient.InferInput("INPUT", data.shape, "FP32")
        tensor.set_data_from_numpy(data)
        answer = client.infer(model, [tensor]).as_numpy("OUTPUT")
        assert answer[0, 0] == answer[0, -1] == i
    print(f"{requests} requests of {data.nbytes >> 20} MiB each way")
    print(client.transport)
