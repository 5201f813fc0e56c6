"""Time behind a port: the real clock. Tests pass a virtual one. Known to the worker and to the adapters."""

from __future__ import annotations

import asyncio
import time

__all__ = ["SYSTEM", "SystemClock"]


class SystemClock:
    """The machine's clocks (the ``Clock`` port)."""

    __slots__ = ()

    #: Seconds since the epoch. The functions themselves, as they are called for every task.
    now = staticmethod(time.time)
    #: Seconds of a clock that never jumps.
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Suspend the current coroutine."""
        await asyncio.sleep(seconds)


#: The clock of whoever is given no other.
SYSTEM = SystemClock()
