"""What time it is for the server: as of its last answer, carried on by this machine's monotonic clock.

Due times are compared with it, so that a machine whose clock is wrong, or jumps, starts nothing early and holds nothing
back. It lags behind by the time that the answer took, and so never runs ahead.
"""

from __future__ import annotations

import time

__all__ = ["ServerTime"]


class ServerTime:
    """``heard`` by the one who claims or reads rules, asked by whoever compares times. Before the first answer: this
    machine's."""

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        self._ahead: float | None = None

    def heard(self, now: float) -> None:
        """The server said so, in seconds since the epoch, just now."""
        self._ahead = now - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        ahead = self._ahead
        return time.time() if ahead is None else time.monotonic() + ahead
