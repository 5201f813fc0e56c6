"""Time behind a port: the real clock, and that of a server. Tests pass a virtual one. Known to the worker and to the
adapters."""

from __future__ import annotations

import asyncio
import time

__all__ = ["SYSTEM", "ServerTime", "SystemClock"]

#: Two clocks drift apart by no more than this, in seconds a second: NTP slews so fast at most.
_DRIFT = 0.0005
#: An answer that is so much older than expected, in seconds, means that the server's clock was set back.
_STEP = 0.5


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


class ServerTime:
    """What time it is for a server: as of its answers, carried on by this machine's monotonic clock.

    Due times are compared with it, so that a machine whose clock is wrong, or jumps, starts nothing early and holds
    nothing back. It lags behind by the time that the quickest answer of late took, and so never runs ahead. ``heard``
    by the one who claims, asked by whoever compares times. Before the first answer: this machine's.
    """

    __slots__ = ("_ahead", "_at")

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._at = 0.0

    def heard(self, now: float) -> None:
        """The server said so, in seconds since the epoch, just now: a moment ago. Of several answers the quickest
        counts, for a slow one would make retries early."""
        at = time.monotonic()
        ahead = now - at
        if self._ahead is not None:
            carried = self._ahead - _DRIFT * (at - self._at)
            if ahead < carried < ahead + _STEP:
                ahead = carried
        self._ahead, self._at = ahead, at

    def now(self) -> float:
        """Seconds since the epoch."""
        ahead = self._ahead
        return time.time() if ahead is None else time.monotonic() + ahead
