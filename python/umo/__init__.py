"""umo: one memory for CPU and GPU under Triton Inference Server.

umo.server   starts the real server on free loopback ports and stops it without remains
umo.models   models that the demonstration, the tests and the benchmarks share
umo.demo     the demonstration (``python -m umo.demo``)
umo.prove    how many bytes a backend copies, by independent witnesses
"""

__version__ = "0.1.0"
