"""A host with two addresses, of which the first answers nothing: neither yes nor no, as a firewall that drops."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions
from celeriac.testing.conformance.tools import message

__all__ = ["LAME", "lame_host", "reaches"]

#: Its name, which nobody else knows.
LAME = "lame.test"
_SILENT = "127.0.0.2"


@contextmanager
def _silent(port: int) -> Iterator[None]:
    """A listener whose queue is full: the kernel drops who knocks."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_SILENT, port))
        listener.listen(0)
        knocking: list[socket.socket] = []
        try:
            while True:
                each = socket.socket()
                each.setblocking(False)
                knocking.append(each)
                each.connect_ex((_SILENT, port))
                if not select.select([], [each], [], 0.2)[1]:
                    break  # this one is not let in: the queue is full
            yield
        finally:
            for each in knocking:
                each.close()


@contextmanager
def lame_host(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a host whose first address is silent, and whose second is this machine's, with a server at
    ``port``."""
    known = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != LAME:
            return known(host, *args, **kwargs)
        if kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return [found for each in (_SILENT, "127.0.0.1") for found in known(each, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with _silent(port):
        yield LAME


def reaches(adapter: Any, url: str) -> None:
    """Publisher and broker of an adapter (a package of ``celeriac.brokers``) come through, within the time for
    connecting. They may try more than once, for this machine may stand still: who waits for the first address alone
    never gets there."""
    options = AdapterOptions(owner="lame", connect_timeout=1.0)

    def publish() -> None:
        publisher = adapter.publisher(url, options)
        try:
            publisher.publish([message("a", queue="lame")], timeout=1.0)
        finally:
            publisher.close()

    async def look() -> None:
        broker = adapter.broker(url, options)
        try:
            await broker.open()
            await broker.declare(["lame"])
            await broker.purge("lame")
        finally:
            await broker.close()

    _patiently(publish)
    _patiently(lambda: asyncio.run(look()))


def _patiently(call: Callable[[], None]) -> None:
    for left in range(9, -1, -1):
        try:
            call()
        except OperationalError:
            if not left:
                raise
        else:
            return
