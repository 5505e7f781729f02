"""As tritonclient.http.aio.auth."""

from tritonclient.http.aio.auth import *  # noqa: F403
