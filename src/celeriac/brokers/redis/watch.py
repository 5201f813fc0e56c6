"""Asks the sentinels whether there was a failover: once a second for all connections of an event loop together.

An old master goes on taking writes for some ten seconds after an ordered failover, and loses them; nobody tells those
who are connected to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

import hiredis

from celeriac.brokers.redis.address import Address
from celeriac.brokers.redis.places import CHECK_INTERVAL, Told, question, told
from celeriac.brokers.redis.wire import LostWire, Wire, connect

__all__ = ["watch"]

#: One sentinel is asked so many times before it is the next one's turn: one alone may have missed a failover.
_TURNS = 5

#: Hears what a sentinel says of the master.
Hears = Callable[[Told], None]


def watch(address: Address, hears: Hears) -> Callable[[], None]:
    """Have the sentinels of an address asked from now on; returns what ends it."""
    watches = _watches.setdefault(asyncio.get_running_loop(), {})
    key = (address.sentinels, address.master)
    found = watches.get(key)
    if found is None:
        found = watches[key] = _Watch(address, lambda: watches.pop(key))
    return found.add(hears)


class _Watch:
    """One master, its sentinels, and those who want to hear of it."""

    def __init__(self, address: Address, ended: Callable[[], object]) -> None:
        self._address = address
        self._ended = ended
        self._hearers: list[Hears] = []
        self._wire: Wire | None = None
        self._turn = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, hears: Hears) -> Callable[[], None]:
        self._hearers.append(hears)

        def end() -> None:
            if hears in self._hearers:
                self._hearers.remove(hears)
                if not self._hearers:
                    self._close()

        return end

    def _close(self) -> None:
        self._task.cancel()
        self._ended()
        if self._wire is not None:
            self._wire.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            fact = await self._ask()
            if fact is not None:
                for hears in list(self._hearers):
                    hears(fact)

    async def _ask(self) -> Told | None:
        sentinels = self._address.sentinels
        sentinel = sentinels[self._turn // _TURNS % len(sentinels)]
        self._turn += 1
        if self._turn % _TURNS == 0 and len(sentinels) > 1:
            self._leave()
        try:
            async with asyncio.timeout(sentinel.connect_timeout):
                if self._wire is None or self._wire.lost is not None:
                    self._wire = await connect(sentinel, on_push=lambda _: None, on_lost=lambda: None)
                return told(await self._wire.send(*question(self._address.master)))
        except (OSError, hiredis.ReplyError):
            self._turn += _TURNS - self._turn % _TURNS  # the next one
            self._leave()
            return None

    def _leave(self) -> None:
        if self._wire is not None:
            self._wire.abort(LostWire("another sentinel is asked"))
            self._wire = None


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, _Watch]] = WeakKeyDictionary()
