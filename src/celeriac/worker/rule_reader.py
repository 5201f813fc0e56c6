"""Reads the rules that changed into a book, however long the broker is away. For the fetcher."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celeriac.exceptions import OperationalError
from celeriac.ports import Broker, Clock, Rules
from celeriac.worker.outage import Outage
from celeriac.worker.rules import RuleBook
from celeriac.worker.runner import Runner

__all__ = ["RuleReader"]

logger = logging.getLogger("celery.worker.consumer")


class RuleReader:
    """Rules end by the runner's time: the broker's where it has a clock, as ours may jump."""

    def __init__(self, broker: Broker, book: RuleBook, runner: Runner, backoff: Outage, clock: Clock) -> None:
        self._broker: Rules | None = broker if isinstance(broker, Rules) else None
        self._book = book
        self._backoff = backoff
        self._runner = runner
        self._clock = clock

    @property
    def behind(self) -> bool:
        """The last claim has told of rules that are not in the book."""
        return self._broker is not None and self._broker.epoch != self._book.epoch

    async def read(self, stopping: Callable[[], bool], away: Callable[[], None]) -> bool:
        """Read until it worked, or ``stopping()``; says whether it worked. ``away()`` is called after each try that
        failed."""
        while self._broker is not None and not stopping():
            try:
                read = await self._broker.rules(self._book.epoch)
            except OperationalError as error:
                away()
                delay = self._backoff.next()
                self._backoff.tell(logger, "Cannot read the rules of the fleet, next try in %.1f s: %s", delay, error)
                await self._clock.sleep(delay)
            else:
                self._book.learn(read, self._runner.now())
                return True
        return False
