"""Time behind a port: the real clock. Tests pass a virtual one. Known to the worker and to the adapters."""

from __future__ import annotations

import asyncio
import time

__all__ = ["SystemClock"]


class SystemClock:
    """The machine's clocks (the ``Clock`` port)."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend the current coroutine."""
        await asyncio.sleep(seconds)
