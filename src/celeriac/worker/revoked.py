"""Ids that were revoked: a bounded memory, the oldest forgotten first (Celery's REVOKES_MAX and REVOKE_EXPIRES)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

__all__ = ["REVOKES_MAX", "REVOKE_EXPIRES", "Revoked"]

#: How many ids are remembered, and for how many seconds.
REVOKES_MAX = 50_000
REVOKE_EXPIRES = 10_800.0


class Revoked(dict[str, float]):
    """Id → when it was revoked, in seconds since the epoch, by ``now()``."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._now = now

    def add(self, ids: Iterable[str]) -> None:
        """Remember ids from now on."""
        now = self._now()
        for each in ids:
            self.pop(each, None)  # the newest goes to the end
            self[each] = now
        while self:
            oldest = next(iter(self))
            if len(self) <= REVOKES_MAX and now - self[oldest] <= REVOKE_EXPIRES:
                return
            del self[oldest]
