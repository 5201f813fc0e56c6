"""Rebuilds the connection of a broker that has stopped answering without a word.

Adapters find dead connections themselves, by timeouts and keep-alives; this is for what they do not find. Runs in each
child, over its claims, and in the agent, over its maintenance.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from celeriac.exceptions import OperationalError
from celeriac.ports import Broker, Clock

__all__ = ["Watchdog", "patience"]

logger = logging.getLogger("celery.worker")

#: Seconds for a close, and between two tries to open.
_CLOSE = 5.0
_EVERY = 1.0


def patience(wait: float, conf: Any) -> float:
    """Seconds after which a call that should take ``wait`` has hung: an adapter may retry for as long as it may connect
    (a SQLite file that is locked), and that is not the watchdog's affair."""
    return 2 * max(wait, float(conf.seconds("broker_connection_timeout") or 4.0))


class Watchdog:
    """``asked()`` says since when a call waits for its answer, in monotonic seconds, 0: none does. One that waits for
    more than ``limit`` seconds is given up."""

    def __init__(self, broker: Broker, asked: Callable[[], float], clock: Clock, *, limit: float) -> None:
        self._broker = broker
        self._asked = asked
        self._clock = clock
        self._limit = limit
        self._given_up = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.sleep(self._limit / 4)
            asked = self._asked()
            if asked and asked != self._given_up and self._clock.monotonic() - asked > self._limit:
                self._given_up = asked
                await self._rebuild()

    async def _rebuild(self) -> None:
        logger.error("The broker has not answered for %.0f s: connecting anew", self._limit)
        try:
            async with asyncio.timeout(_CLOSE):
                await self._broker.close()
        except (TimeoutError, OperationalError) as error:
            logger.warning("The broker's old connection does not close: %s", str(error) or "it took too long")
        while True:
            try:
                await self._broker.open()
            except OperationalError:
                await self._clock.sleep(_EVERY)  # whoever calls the broker meets the same, and says so
            else:
                return
