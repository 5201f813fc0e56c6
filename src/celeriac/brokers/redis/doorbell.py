"""Wakes claims that wait on one connection: rung by the server's invalidations, by our own writes and by a loss."""

from __future__ import annotations

import asyncio

__all__ = ["Doorbell"]


class Doorbell:
    """Counts rings, so that a ring between asking the server and waiting is not missed."""

    def __init__(self, also: Doorbell | None = None) -> None:
        self.count = 0
        #: Rung too, for those who wait for several.
        self._also = also
        self._sleepers: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake everybody."""
        self.count += 1
        sleepers, self._sleepers = self._sleepers, set()
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
        if self._also is not None:
            self._also.ring()

    async def wait(self, seen: int, timeout: float) -> None:
        """Return at the first ring after count ``seen``, or after ``timeout`` seconds."""
        if self.count != seen or timeout <= 0:
            return
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        self._sleepers.add(sleeper)
        timer = loop.call_later(timeout, _wake, sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
