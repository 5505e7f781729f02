"""Whether a port is free, and if not, who has it: what a server says of it too late and in other words."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

_LISTENING = "0A"


class PortError(OSError):
    """A port that cannot be had, with who has it and what to do."""


def _inodes(port: int) -> set[str]:
    """The sockets that listen on it."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                columns = row.split()
                if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                    found.add(columns[9])
    return found


def holder(port: int) -> str:
    """ "process 4711 (tritonserver)" for the one that listens on a port; "" where nobody may say."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not wanted:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in wanted:
                    return f"process {process.name} ({(process / 'comm').read_text().strip()})"
    return "a process of another user or container"


def _bind(host: str, port: int) -> int:
    """0, or why a server could not listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: what is left of closed connections does not matter, a listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), port))
            if sys.platform == "darwin":
                probe.listen(1)
    except socket.gaierror:
        return 0  # a name that the server may know
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def check(asked: Iterable[tuple[str, str, int]]) -> None:
    """Each (what, host, port) can be listened on, and no two are the same. Raises PortError.

    Somebody may still take one before the server does; then the server's own words have to do.
    """
    seen: dict[int, str] = {}
    for what, host, port in asked:
        option = f"--{what}-port"
        if port in seen:
            raise PortError(f"--{seen[port]}-port and {option} are both {port}; give each its own, or 0 for a free one")
        seen[port] = what
        code = _bind(host, port)
        if code == errno.EADDRINUSE:
            who = holder(port)
            raise PortError(
                f"port {port} is taken{f' by {who}' if who else ''}; end that, or choose another: {option} N (0: any)"
            )
        if code == errno.EACCES:
            raise PortError(f"port {port} is for root alone; choose one from 1024 on: {option} N (0: any)")
        if code == errno.EADDRNOTAVAIL:
            raise PortError(f"{host} is no address of this machine; choose another: --{what}-address=ADDRESS")
