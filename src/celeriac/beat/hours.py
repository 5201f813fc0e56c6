"""What time it is for a fleet of schedulers: the ledger's server says so, where it has a clock.

Between two questions the monotonic clock carries on. So no scheduler sends early because its machine's clock is wrong.
Known to ``scheduler.py``; asks the server, and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from celeriac.ports import BlockingLedger, Timed

__all__ = ["MOST_SKEW", "Hours"]

logger = logging.getLogger("celery.beat")

#: Seconds between two questions.
_EVERY: Final = 10.0
#: Seconds by which this machine's clock may differ from the server's without a word.
MOST_SKEW: Final = 2.0
#: Seconds for an answer.
_TIMEOUT: Final = 2.0


def _wall() -> float:
    return time.time()  # looked up when it is called: a simulation puts another in its place


def _monotonic() -> float:
    return time.monotonic()


class Hours:
    """The time. ``wall`` and ``monotonic`` are this machine's clocks."""

    def __init__(
        self,
        ledger: BlockingLedger | None,
        wall: Callable[[], float] | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        given: Any = ledger
        self._ledger: Timed | None = given if isinstance(given, Timed) else None
        self._wall = wall or _wall
        self._monotonic = monotonic or _monotonic
        self._ahead = 0.0
        self._asked: float | None = None
        self._warned = False
        #: Seconds by which this machine's clock is ahead of the server's.
        self.skew = 0.0

    def now(self) -> float:
        """Seconds since the epoch, never ahead of the server's."""
        if self._ledger is None or self._asked is None:
            return self._wall()
        return self._monotonic() + self._ahead

    def ask(self) -> None:
        """Ask the server when that is due. Raises ``OperationalError``: the time is carried on."""
        before = self._monotonic()
        if self._ledger is None or (self._asked is not None and before - self._asked < _EVERY):
            return
        told = self._ledger.time(timeout=_TIMEOUT)
        after = self._monotonic()
        self._ahead, self._asked = told - after, after
        doubt = (after - before) / 2
        self.skew = self._wall() - told - doubt
        self._judge(doubt)

    def _judge(self, doubt: float) -> None:
        # What took long to come says so much less: a process that stood still meanwhile has no wrong clock.
        wrong = abs(self.skew) - doubt > MOST_SKEW
        if wrong and not self._warned:
            logger.warning(
                "This machine's clock is %.1f s %s the ledger's server; the server's counts",
                abs(self.skew),
                "ahead of" if self.skew > 0 else "behind",
            )
        elif self._warned and not wrong:
            logger.info("This machine's clock agrees with the ledger's server again")
        self._warned = wrong
