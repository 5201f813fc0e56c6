"""How long to wait before trying a server again: exponential, jittered, reset by success."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

__all__ = ["Backoff", "Fruitless"]

#: Seconds between claims of what only comes and goes.
_FIRST = 0.01
_MOST = 0.5
#: Most ids that are remembered.
_IDS = 10_000


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


class Fruitless:
    """Slows claims down that bring, again, what went back before: where a clock is wrong, what is put off comes back at
    once. The first time is no fault: so a thousand tasks that are due later leave the queue at full speed."""

    def __init__(self) -> None:
        self.count = 0
        self._ids: set[str] = set()
        #: What a limit has put off: until when it is too early to ask again, monotonic.
        self._until: dict[str, float] = {}

    def went_back(self, ids: Collection[str]) -> None:
        """A claim brought these, and all of them went back."""
        if not self._ids.isdisjoint(ids):
            self.count += 1
        elif len(self._ids) > _IDS:
            self._ids.clear()
        self._ids.update(ids)

    def put_off(self, waits: Mapping[str, float], now: float) -> None:
        """A claim brought these, and limits put all of them off, for so many seconds: to ask again in time is no fault,
        before half of that is over it is."""
        if any(self._until.get(each, now) > now for each in waits):
            self.count += 1
        elif len(self._until) > _IDS:
            self._until.clear()
        self._until.update({each: now + wait / 2 for each, wait in waits.items()})

    def reset(self) -> None:
        """A claim brought something else."""
        if self._ids or self._until:
            self._ids.clear()
            self._until.clear()
            self.count = 0

    @property
    def pause(self) -> float:
        """Seconds to wait before the next claim."""
        return min(_MOST, _FIRST * 2 ** min(self.count, 10)) if self.count else 0.0
