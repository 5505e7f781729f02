"""One way to ask each kind of model: the attacker asks as the neighbour does, and both know the right answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from hostile.flow_models import RAGGED, RESPONSES, STEP
from hostile.wire import Answer, Grpc, Http, Stream, Tensor


class Line:
    """One sequence of a delay line, which begins with its first step and never ends by itself."""

    def __init__(self, model: str, sequence: int | str) -> None:
        self.model, self.sequence = model, sequence
        self.fresh = True
        self.past: np.ndarray | None = np.zeros(STEP, np.float32)  # None: nobody can tell

    def ask(
        self, transport: Http | Grpc, given: Tensor, wanted: Tensor, x: np.ndarray | None, end: bool = False
    ) -> tuple[Answer, np.ndarray | None]:
        """One step, whose input is x if it is known; the answer that has to come, if there is one."""
        flags: dict[str, Any] = {"sequence_id": self.sequence, "sequence_start": self.fresh, "sequence_end": end}
        answer = transport.infer(self.model, [given], [wanted], flags)
        right = self.past
        if not answer.error:
            self.fresh, self.past = False, x
        if end or (answer.error and self.fresh):
            self.fresh, self.past = True, np.zeros(STEP, np.float32)
        return answer, right


def ask_stream(stream: Stream, model: str, given: Tensor, wanted: Tensor) -> tuple[Answer, list[bytes]]:
    """One request and its responses. The answer is the first failure, if there was one."""
    stream.ask(model, [given], [wanted])
    responses: list[bytes] = []
    first = Answer()
    for _ in range(RESPONSES + 1):
        answer, final = stream.take()
        first = first if first.error else answer
        responses += answer.outputs.values()
        if final:
            return Answer(error=first.error), responses
    return Answer(error="there is no last response"), responses


def names_of(model: str) -> tuple[str, str]:
    """Of the input and the output."""
    return ("INPUT0", "OUTPUT0") if model in RAGGED else ("IN", "OUT")


def shape_of(model: str, count: int) -> list[int]:
    """Of `count` floats."""
    return [count] if model == "stream" else [1, count]
