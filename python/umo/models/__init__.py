"""Models that the demonstration, the tests and the benchmarks share. All are built here, none is downloaded.

minilm       sentence embeddings, rebuilt as ONNX from the weights in a Python package
big          large tensors through a small computation
small        one ONNX model for each way a tensor can be awkward
photo        a photograph of twelve megapixels
repository   all of these as a model repository of the real server
"""
