"""A tritonserver that runs under the witnesses."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..server import TritonServer
from .census import Census
from .spy import Spy


class ProvedServer:
    """Starts the real server with the spy preloaded and the census at hand; use it as a context manager.

    repository, backends  as for umo.server.TritonServer, which gets every further argument
    spy_library           default: the one of this checkout's release build

    >>> with ProvedServer(repository, backends) as server:
    ...     before = server.spy.read()
    ...     server.census.arm()
    ...     infer(server.grpc_url)
    ...     pages = server.census.scan().outside(outputs)
    ...     copied = (server.spy.settle() - before).bytes("backend")
    """

    def __init__(
        self,
        repository: str | Path,
        backends: str | Path | None = None,
        *,
        spy_library: str | Path | None = None,
        env: dict[str, str | None] | None = None,
        **server_options: Any,
    ) -> None:
        # Where the counters lie must be memory, or a write-back to a disk would be part of what is measured.
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix=f"umo-prove-{os.getpid()}-", dir=place))
        try:
            witnessed: dict[str, str | None] = {**Spy.environment(self._folder / "spy", library=spy_library)}
            witnessed.update(env or {})
            self.server = TritonServer(repository, backend_directory=backends, env=witnessed, **server_options)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.spy: Spy
        self.census: Census

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(keep_log=kind is not None)

    def start(self) -> None:
        """Starts the server and waits until it is ready and counts.

        Raises ServerError where the server fails, SpyError where the spy does not show itself.
        """
        try:
            self.server.start()
            self.spy = Spy(self._folder / "spy")
            self.census = Census(self.spy.file(self.server.pid))
        except BaseException:
            self.stop(keep_log=True)
            raise

    def stop(self, keep_log: bool = False) -> None:
        """Stops the server and removes the counters' files."""
        try:
            self.server.stop(keep_log=keep_log)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def http_url(self) -> str:
        """host:port for tritonclient.http."""
        return self.server.http_url

    @property
    def grpc_url(self) -> str:
        """host:port for tritonclient.grpc."""
        return self.server.grpc_url
