"""A drop-in for tritonclient.http.aio: the same names, the same calls; see umo.client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tritonclient.http.aio as base
from tritonclient.http.aio import *  # noqa: F403

from umo.client import shared
from umo.client.http import WIRE, InferInput, InferRequestedOutput, InferResult, wrap  # noqa: F401
from umo.client.shared import Shared, like

__all__ = [name for name in dir(base) if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    return getattr(base, name)


class InferenceServerClient(Shared, base.InferenceServerClient):
    """tritonclient's; tensors stay in memory that is shared with the server where that is possible (`transport`)."""

    _umo_wire = WIRE
    _umo_base = base.InferenceServerClient

    @like(base.InferenceServerClient.__init__)
    def __init__(self, url: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(url, *args, **kwargs)
        self._umo_start("http", url)

    @like(base.InferenceServerClient.close)
    async def close(self) -> None:
        if self in shared._clients and self._umo_is_last():
            await self._umo_drive_async(self._umo_link.real().shut())
        await super().close()

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
        headers = kwargs.get("headers", args[4] if len(args) > 4 else None)
        inputs, outputs = shared.lists(inputs, outputs)
        steps = self._umo_link.prepare(WIRE, model_name, model_version, inputs, outputs, sequence_id not in (0, ""))
        attempt = await self._umo_drive_async(steps, headers=None if headers is None else dict(headers))

        def send(its_inputs: Any, its_outputs: Any) -> Any:
            return base.InferenceServerClient.infer(
                self, model_name, its_inputs, model_version, its_outputs, request_id, sequence_id, *args, **kwargs
            )

        return await shared.sends_async(self, attempt, inputs, outputs, send, wrap)

    @like(base.InferenceServerClient.unregister_system_shared_memory)
    async def unregister_system_shared_memory(self, name: str = "", *args: Any, **kwargs: Any) -> None:
        await super().unregister_system_shared_memory(name, *args, **kwargs)
        self._umo_unregistered(name)

    @like(base.InferenceServerClient.load_model)
    async def load_model(self, model_name: str, *args: Any, **kwargs: Any) -> None:
        await super().load_model(model_name, *args, **kwargs)
        self._umo_link.real().forget_model(model_name)

    @like(base.InferenceServerClient.unload_model)
    async def unload_model(self, model_name: str, *args: Any, **kwargs: Any) -> None:
        await super().unload_model(model_name, *args, **kwargs)
        self._umo_link.real().forget_model(model_name)
