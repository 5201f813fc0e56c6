"""Where claims begin to look when the front of a queue is full of rows that are gone.

Vacuum removes what claims have taken. Until it can (a transaction that is open for long holds it up) each claim reads
over all of it. Then most claims begin where the last one found something, and only now and then one looks at all: for
messages whose transactions took long, or that somebody gave back.

Pure; the server's part is ``take`` in ``sql/queues.sql``. Used by claims.py, for each list of queues.
"""

from __future__ import annotations

__all__ = ["Marks"]

#: A look at all is slow when it takes the server so many seconds, and so many more for each message.
_SLOW, _EACH = 0.005, 0.0002
#: Time between two such looks: so many times what the last one took, and at least so many seconds.
_TIMES, _LEAST = 20.0, 1.0
#: A look at all, class by class; by step there is a mark for what was due and one for what arrived.
_LOWEST = -(2**63)
_STEPS, _CLASSES = 4, 2


class Marks:
    """Times are a monotonic clock's."""

    def __init__(self, queues: int) -> None:
        self._lowest = [_LOWEST] * (queues * _STEPS * _CLASSES)
        #: None: there is no need for them.
        self._marks: list[int] | None = None
        self._all_at = 0.0

    def start(self, now: float) -> list[int] | None:
        """From where the next claim looks; None: at all, in one go."""
        return self._lowest if self._marks is not None and now >= self._all_at else self._marks

    def found(self, started: list[int] | None, took: float, marks: list[int] | None, limit: int, now: float) -> None:
        """A claim that looked from there took so long, and left these marks."""
        slow = took > _SLOW + _EACH * limit
        if started is None:
            if slow and self._marks is None:
                self._marks, self._all_at = self._lowest, now
        elif started is not self._lowest:
            if self._marks is not None:
                self._marks = marks
        elif slow:
            self._marks, self._all_at = marks, now + max(_LEAST, _TIMES * took)
        else:
            self._marks = None

    def rest(self, now: float) -> float | None:
        """Seconds until a claim looks at all; None: each does."""
        return None if self._marks is None else max(0.0, self._all_at - now)
