"""A coroutine's place to wait until another thread, another task or the clock wakes it, for claims and listeners."""

from __future__ import annotations

import asyncio

from celeriac.ports import Clock

__all__ = ["Waiter"]


class Waiter:
    """Made by the coroutine that waits, in its loop; woken from any thread; good for one wait."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        """End the wait, now or when it begins. Never blocks, never raises."""
        if asyncio._get_running_loop() is self._loop:
            self._set()
            return
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            pass  # its loop is closed: nobody waits any more

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def woken(self) -> None:
        """Until woken."""
        await self._future

    async def wait(self, seconds: float, clock: Clock) -> None:
        """Until woken, or until the clock says that ``seconds`` have passed."""
        alarm = asyncio.ensure_future(clock.sleep(seconds))
        alarm.add_done_callback(lambda _: self._set())
        try:
            await self._future
        finally:
            alarm.cancel()
