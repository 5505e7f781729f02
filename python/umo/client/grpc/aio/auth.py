"""As tritonclient.grpc.aio.auth."""

from tritonclient.grpc.aio.auth import *  # noqa: F403
