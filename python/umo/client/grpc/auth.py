"""As tritonclient.grpc.auth."""

from tritonclient.grpc.auth import *  # noqa: F403
