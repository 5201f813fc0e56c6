"""What both kinds of connection know of sockets. Pure but for the options it sets."""

from __future__ import annotations

import os
import socket
from typing import Any

from celeriac.brokers.rabbitmq.address import PING_INTERVAL, REPLY_TIMEOUT

__all__ = ["hang_up", "tune"]


def tune(sock: Any) -> None:
    """No delay for small writes; let the kernel find dead peers within ``PING_INTERVAL + REPLY_TIMEOUT``."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 4),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", int((PING_INTERVAL + REPLY_TIMEOUT) * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:  # the names differ between systems; ours is Linux
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def hang_up(sock: Any) -> None:
    """End the connection, whoever else has a descriptor of it: closing ours would not."""
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as same:  # uvloop's has no shutdown
            same.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is over
