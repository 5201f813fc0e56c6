"""From a host's name to a connection: a name may have several addresses, and each gets its share of the time.

Of a host that is reachable by IPv4 alone the first address may be one of IPv6 that answers nothing at all: then the
second must be tried while there is time left. Knows no server. Loads asyncio for those alone who have it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["Place", "dial", "dialed", "resolve", "resolved", "shares"]

#: Family, type, protocol, canonical name, and address: what ``getaddrinfo`` says.
Place = tuple[Any, Any, int, str, tuple[Any, ...]]
monotonic = time.monotonic


def resolve(host: str, port: int | None) -> Sequence[Place]:
    """The addresses of a host, the preferred one first. Raises ``OSError``."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def resolved(host: str, port: int | None) -> Sequence[Place]:
    """The same on a loop. Raises ``OSError``."""
    import asyncio

    try:  # what is an address already needs no thread
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def shares(count: int, deadline: float) -> Iterator[float]:
    """Until when each of so many tries may take, in monotonic seconds: what the ones before have left is divided."""
    for left in range(count, 0, -1):
        now = monotonic()
        yield now + max(deadline - now, 0.001) / left


def dial(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first address that answers, by the monotonic ``deadline``. Raises the first ``OSError`` when
    none does."""
    places, failure = resolve(host, port), None
    for (family, kind, protocol, _, address), until in zip(places, shares(len(places), deadline), strict=True):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that is not there
            failure = failure or error
            continue
        try:
            sock.settimeout(max(until - monotonic(), 0.001))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = failure or error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


async def dialed(host: str, port: int, seconds: float) -> socket.socket:
    """The same on a loop, within ``seconds``; the socket does not block."""
    import asyncio

    loop, deadline = asyncio.get_running_loop(), monotonic() + seconds
    places, failure = await resolved(host, port), None
    for (family, kind, protocol, _, address), until in zip(places, shares(len(places), deadline), strict=True):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = failure or error
            continue
        try:
            sock.setblocking(False)
            async with asyncio.timeout(max(until - monotonic(), 0.001)):
                await loop.sock_connect(sock, address)
        except OSError as error:  # TimeoutError is one
            sock.close()
            failure = failure or error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")
