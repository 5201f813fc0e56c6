"""How long to wait before trying a server again: exponential, jittered, reset by success."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Delays in seconds from ``first`` doubling to ``maximum``; each is spread over its upper half by ``rand()``.

    The default maximum is what a server that is back may wait for its workers; a try costs them a millisecond.
    """

    def __init__(self, *, rand: Callable[[], float], first: float = 0.05, maximum: float = 0.5) -> None:
        self._rand = rand
        self._first = first
        self._maximum = maximum
        self._next = first
        self.failures = 0

    def next(self) -> float:
        """The next delay."""
        self.failures += 1
        span = self._next
        self._next = min(self._maximum, span * 2)
        return span * (0.5 + 0.5 * self._rand())

    @property
    def loud(self) -> bool:
        """This failure is worth a line in the log: the 1st, 2nd, 4th, 8th … in a row, and every 64th."""
        return self.failures & (self.failures - 1) == 0 or self.failures % 64 == 0

    def reset(self) -> None:
        """It worked."""
        self._next = self._first
        self.failures = 0
