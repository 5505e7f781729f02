"""Bodies of requests whose tensors the server can use where they lie.

Triton hands a backend the body itself, which begins at a multiple of 16 in its memory (libevent's allocation); the
tensors lie behind the request's JSON, so at whatever address its length makes. JSON ends with as many blanks as one
likes: with a length that is a multiple of 64 the first tensor is aligned for any type, and each one behind tensors
whose sizes are such multiples. An engine that needs aligned numbers copies nothing then.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_ALIGNMENT = 64
_MAKER = "_get_inference_request"  # tritonclient's function that makes a body

Method = TypeVar("Method", bound=Callable[..., Any])


class _Head:
    """An input without its bytes."""

    def __init__(self, tensor: Any) -> None:
        self._get_tensor = tensor._get_tensor

    def _get_binary_data(self) -> None:
        return None


def _aligned(make: Callable[..., tuple[bytes, int | None]]) -> Callable[..., tuple[bytes, int | None]]:
    def made(inputs: Sequence[Any], *args: Any, **kwargs: Any) -> tuple[bytes, int | None]:
        head, _ = make([_Head(tensor) for tensor in inputs], *args, **kwargs)
        tensors = [data for tensor in inputs if (data := tensor._get_binary_data()) is not None]
        if not tensors:
            return head, None
        head += b" " * (-len(head) % _ALIGNMENT)
        return b"".join([head, *tensors]), len(head)

    return made


def aligns(method: Method) -> Method:
    """A method of tritonclient's, with bodies made here; a version that makes them otherwise is left as it is."""
    made_there = getattr(method, "__globals__", {})
    if not isinstance(method, types.FunctionType) or _MAKER not in made_there:
        return method
    names = {**made_there, _MAKER: _aligned(made_there[_MAKER])}
    copy = types.FunctionType(method.__code__, names, method.__name__, method.__defaults__, method.__closure__)
    copy.__kwdefaults__ = method.__kwdefaults__
    return copy  # type: ignore[return-value]
