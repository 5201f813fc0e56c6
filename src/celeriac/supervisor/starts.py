"""Processes that die young: how long until the next start, and what is said about it."""

from __future__ import annotations

__all__ = ["MANY", "Starts"]

#: So many in a row are a crash loop.
MANY = 3
_FIRST = 0.1
_SLOWEST = 30.0


class Starts:
    """Failed starts in a row. Times in monotonic seconds."""

    def __init__(self) -> None:
        self.failures = 0
        #: Nobody is started before.
        self.not_before = 0.0
        self._causes: dict[str, int] = {}
        self._first = 0.0
        self._last = -1.0
        self._said = 0

    def failed(self, began: float, now: float, cause: str) -> float:
        """One that was started at ``began`` has died young; returns the seconds until the next start.

        Those that were started together count once: the pause doubles from wave to wave.
        """
        if not self.failures:
            self._first, self._causes, self._said = now, {}, 0
        if began > self._last:
            self.failures += 1
            self._last = now
        self._causes[cause] = self._causes.get(cause, 0) + 1
        delay: float = min(_SLOWEST, _FIRST * 2**self.failures)
        self.not_before = max(self.not_before, now + delay)
        return delay

    def worked(self, began: float) -> bool:
        """One that was started at ``began`` does its work; says whether that ends a crash loop."""
        if not self.failures or began <= self._last:
            return False
        looped = self.loops
        self.failures, self.not_before = 0, 0.0
        return looped

    @property
    def loops(self) -> bool:
        """It is a crash loop."""
        return self.failures >= MANY

    def line(self, now: float) -> str:
        """The loop in one line, at the 3rd, 6th, 12th … failure; else nothing."""
        steps, rest = divmod(self.failures, MANY)
        if rest or not steps or steps & (steps - 1) or self._said == self.failures:
            return ""
        self._said = self.failures
        total = sum(self._causes.values())
        most = max(self._causes, key=lambda cause: self._causes[cause])
        share = "each" if len(self._causes) == 1 else f"{self._causes[most]} of them"
        pause = max(0.0, self.not_before - now)
        return (
            f"{total} processes died within {now - self._first:.0f} s before they worked, {share} by {most}: look at "
            f"the lines above, at the receivers of worker_process_init, at memory and limits; next try in {pause:.1f} s"
        )
