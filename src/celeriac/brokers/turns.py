"""Turns: so many threads at a time, and a signal whose handler raises takes none of them away for ever.

Between ``lock.acquire(timeout=...)`` and the ``try`` behind it a handler may raise, and the lock stays locked. Here a
holder is known by an object of its own, made before: giving back what may not have been taken does no harm, so that all
of it can stand inside the ``try``. For the blocking connections of adapters; knows nothing of them.
"""

from __future__ import annotations

import threading
import time

__all__ = ["Turns"]

monotonic = time.monotonic


class Turns:
    """``places`` at a time; 0: any number. Not to be used across a fork: a new process makes new ones."""

    def __init__(self, places: int) -> None:
        self._places = places
        #: ``with`` alone takes it: the interpreter lets no handler run between that and its block.
        self._lock = threading.Lock()
        self._holders: set[object] = set()
        #: Of those who wait, in their order; each takes its own away.
        self._bells: list[threading.Lock] = []

    def take(self, who: object, deadline: float) -> bool:
        """A turn for ``who``, which ends with ``end(who)``; False when none is free by ``deadline`` (monotonic)."""
        with self._lock:
            if not self._bells and (not self._places or len(self._holders) < self._places):
                self._holders.add(who)
                return True
        bell = threading.Lock()
        bell.acquire()
        try:
            return self._wait(who, bell, deadline)
        finally:
            try:
                self._forget(bell)
            except BaseException:
                self._forget(bell)  # somebody's signal came in between
                raise

    def _wait(self, who: object, bell: threading.Lock, deadline: float) -> bool:
        while True:
            with self._lock:
                if self._has_room():
                    self._holders.add(who)
                    return True
                if bell not in self._bells:
                    self._bells.append(bell)
            left = min(deadline - monotonic(), threading.TIMEOUT_MAX)
            if left <= 0 or not bell.acquire(timeout=left):
                return False

    def end(self, who: object) -> None:
        """The turn is over, if ``who`` has one. Whoever is interrupted here calls it again."""
        with self._lock:
            self._holders.discard(who)
            if self._bells:
                self._ring()

    @property
    def taken(self) -> int:
        """How many there are now."""
        return len(self._holders)

    def _has_room(self) -> bool:
        return not self._places or len(self._holders) < self._places

    def _ring(self) -> None:
        """One is woken for a free place; when it goes on it wakes the next, if there are more."""
        if self._has_room():
            for bell in self._bells:
                if bell.locked():
                    bell.release()
                    return

    def _forget(self, bell: threading.Lock) -> None:
        """Nobody waits at this one any more; it may have rung for another, or for more than one."""
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)
            self._ring()
