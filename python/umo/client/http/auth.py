"""As tritonclient.http.auth."""

from tritonclient.http.auth import *  # noqa: F403
