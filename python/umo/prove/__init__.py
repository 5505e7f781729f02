"""umo.prove: how many bytes does a Triton backend copy? Three witnesses that do not trust the backend, nor each other.

Spy     counts the bytes that pass through memcpy and the device copy calls, by the library that called them.
        Exact, but blind to intrinsics, `rep movsb`, plain loops and copies inside libc.
Census  lists the pages that a request dirtied, whatever instruction wrote them. Sees every write of the
        server's process, but counts whole pages and says nothing about who wrote.
slope   counts instructions per request at several tensor sizes and fits a line: whatever walks over the
        tensor has a slope. Sees everything outside the kernel, but needs valgrind and a host program of ours.

ProvedServer starts a tritonserver with the first two; observe() asks a model over each transport and reports;
the command line is `python -m umo.prove`. All of it works with any backend, not only umo's.
"""

from .census import Census, CensusError, CensusReport, CensusUnavailable, Dirty, Region
from .classify import ROLES, Classifier
from .proof import Observation, failures, observe, page_failures, slope_failures, slope_inputs
from .served import ProvedServer
from .slope import FLAT, Fit, SlopeError, SlopeReport, SlopeUnavailable, slope
from .spy import COPIES, DEVICE_COPIES, HOST_COPIES, LARGE_BYTES, Reading, Row, Spy, SpyError
from .traffic import ModelSpec, TrafficError, describe, make_inputs

__all__ = [
    "COPIES",
    "DEVICE_COPIES",
    "FLAT",
    "HOST_COPIES",
    "LARGE_BYTES",
    "ROLES",
    "Census",
    "CensusError",
    "CensusReport",
    "CensusUnavailable",
    "Classifier",
    "Dirty",
    "Fit",
    "ModelSpec",
    "Observation",
    "ProvedServer",
    "Reading",
    "Region",
    "Row",
    "SlopeError",
    "SlopeReport",
    "SlopeUnavailable",
    "Spy",
    "SpyError",
    "TrafficError",
    "describe",
    "failures",
    "make_inputs",
    "observe",
    "page_failures",
    "slope",
    "slope_failures",
    "slope_inputs",
]
