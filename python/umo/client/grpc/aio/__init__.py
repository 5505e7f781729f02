"""A drop-in for tritonclient.grpc.aio: the same names, the same calls; see umo.client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tritonclient.grpc.aio as base
from tritonclient.grpc.aio import *  # noqa: F403

from umo.client import faces, shared
from umo.client.grpc import WIRE, InferInput, InferRequestedOutput, InferResult, extra, wrap  # noqa: F401
from umo.client.link import Control
from umo.client.shared import like

__all__ = [name for name in dir(base) if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    return getattr(base, name)


class InferenceServerClient(faces.Asynchronous, base.InferenceServerClient):
    """tritonclient's; tensors stay in memory that is shared with the server where that is possible (`transport`)."""

    _umo_wire = WIRE
    _umo_base = base.InferenceServerClient
    close = faces.shuts_async(base.InferenceServerClient.close)
    unregister_system_shared_memory = faces.unregisters_async(
        base.InferenceServerClient.unregister_system_shared_memory
    )
    load_model = faces.changes_model_async(base.InferenceServerClient.load_model)
    unload_model = faces.changes_model_async(base.InferenceServerClient.unload_model)

    @like(base.InferenceServerClient.__init__)
    def __init__(self, url: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(url, *args, **kwargs)
        self._umo_start("grpc", url)

    def _umo_extra(self, control: Control) -> dict[str, Any]:
        return extra(control)

    @like(base.InferenceServerClient.infer)
    async def infer(
        self,
        model_name: str,
        inputs: Sequence[Any],
        model_version: str = "",
        outputs: Sequence[Any] | None = None,
        request_id: str = "",
        sequence_id: int | str = 0,
        *args: Any,
        **kwargs: Any,
    ) -> InferResult:
        headers = kwargs.get("headers", args[5] if len(args) > 5 else None)
        inputs, outputs = shared.lists(inputs, outputs)
        attempt = await self._umo_prepare_async(model_name, inputs, model_version, outputs, sequence_id, headers)

        def send(its_inputs: Any, its_outputs: Any) -> Any:
            return base.InferenceServerClient.infer(
                self, model_name, its_inputs, model_version, its_outputs, request_id, sequence_id, *args, **kwargs
            )

        return await shared.sends_async(self, attempt, inputs, outputs, send, wrap)
