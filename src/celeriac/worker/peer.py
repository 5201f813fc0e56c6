"""Who is at the other end of a Unix socket: the agent and the children of one node talk to nobody else.

An abstract socket has no permissions: any user of the machine (and of the container's network) may connect to it, or
listen under its name. The kernel says who it is.
"""

from __future__ import annotations

import os
import socket
import struct

__all__ = ["is_of_this_node"]

_CREDENTIALS = struct.Struct("3i")


def is_of_this_node(sock: socket.socket) -> bool:
    """Whether the peer runs as our user and is this process, or was forked by the supervisor that forked us."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return False
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return bool(uid == os.geteuid() and pid > 0 and (pid == os.getpid() or _parent(pid) == os.getppid()))


def _parent(pid: int) -> int:
    """0 for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name in brackets may hold anything.
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
