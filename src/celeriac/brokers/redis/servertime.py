"""What time it is for the server: as of its answers, carried on by this machine's monotonic clock.

Due times are compared with it, so that a machine whose clock is wrong, or jumps, starts nothing early and holds nothing
back. It lags behind by the time that the quickest answer of late took, and so never runs ahead.
"""

from __future__ import annotations

import time

__all__ = ["ServerTime"]

#: Two clocks drift apart by no more than this, in seconds a second: NTP slews so fast at most.
_DRIFT = 0.0005
#: An answer that is so much older than expected, in seconds, means that the server's clock was set back.
_STEP = 0.5


class ServerTime:
    """``heard`` by the one who claims or reads rules, asked by whoever compares times. Before the first answer: this
    machine's."""

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
