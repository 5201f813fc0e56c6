"""What both kinds of connection know of sockets and servers. Pure but for the options it sets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import hiredis

from celeriac.brokers.redis.address import Address

__all__ = ["Word", "pack", "tune", "version_of"]

#: A part of a command.
Word = str | bytes | int | float
#: A command as bytes.
pack: Callable[[tuple[Word, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub means tuple[..., ...]


def tune(sock: Any, address: Address) -> None:
    """No delay for small writes; let the kernel find dead peers within ``PING_INTERVAL + REPLY_TIMEOUT``."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 4),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", int((address.ping_interval + address.reply_timeout) * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:  # the names differ between systems; ours is Linux
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def version_of(facts: Any) -> tuple[int, int]:
    """Major and minor version in the answer to HELLO; decides how scripts are spelled."""
    text = facts.get(b"version", b"6.2") if isinstance(facts, dict) else b"6.2"
    major, _, rest = text.decode().partition(".")
    try:
        return int(major), int(rest.partition(".")[0] or 0)
    except ValueError:
        return 6, 2
