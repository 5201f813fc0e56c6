"""A clock that stands still until a test moves it (the ``Clock`` port): simulations without waiting, all alike.

Knows nothing of what sleeps on it. Whoever sleeps may live in another thread's event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from heapq import heappop, heappush
from math import inf, nextafter

__all__ = ["VirtualClock"]

#: Turns of the event loop that the code between two moments gets to come to rest.
_TURNS = 50


class VirtualClock:
    """Time in seconds that passes only in ``advance``."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._time = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """The same: nothing makes this clock jump."""
        return self._time

    async def sleep(self, seconds: float) -> None:
        """Suspend the current coroutine until ``advance`` has passed that moment."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            # However short a sleep is, time has moved after it; else who waits for a moment would turn for ever.
            moment = max(self._time + seconds, nextafter(self._time, inf))
            heappush(self._sleepers, (moment, next(self._numbers), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let time pass: sleepers wake in order, each at its own moment, and run until they sleep again."""
        end = self._time + seconds
        await self._rest()
        while (sleeper := self._next(end)) is not None:
            _wake(sleeper)
            await self._rest()
        self._time = end
        await self._rest()

    def _next(self, end: float) -> asyncio.Future[None] | None:
        with self._lock:
            while self._sleepers and self._sleepers[0][0] <= end:
                moment, _, future = heappop(self._sleepers)
                if not future.done():
                    self._time = max(self._time, moment)
                    return future
        return None

    @staticmethod
    async def _rest() -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)


def _wake(future: asyncio.Future[None]) -> None:
    def finish() -> None:
        if not future.done():
            future.set_result(None)

    try:
        future.get_loop().call_soon_threadsafe(finish)
    except RuntimeError:
        pass  # its loop is closed
