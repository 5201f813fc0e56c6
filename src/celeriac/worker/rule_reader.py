"""Reads the rules that changed into a book, however long the broker is away. For the fetcher."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celeriac.exceptions import OperationalError
from celeriac.ports import Clock, Rules
from celeriac.worker.backoff import Backoff
from celeriac.worker.rules import RuleBook

__all__ = ["read_rules"]

logger = logging.getLogger("celery.worker.consumer")


async def read_rules(
    broker: Rules,
    book: RuleBook,
    backoff: Backoff,
    *,
    stopping: Callable[[], bool],
    away: Callable[[], None],
    now: Callable[[], float],
    clock: Clock,
) -> bool:
    """Read until it worked, or ``stopping()``; says whether it worked. ``away()`` is called after each try that failed,
    ``now()`` is the time by which rules end: the broker's where it has a clock, as ``clock`` may jump."""
    while not stopping():
        try:
            read = await broker.rules(book.epoch)
        except OperationalError as error:
            away()
            delay = backoff.next()
            if backoff.loud:
                logger.error("Cannot read the rules of the fleet, next try in %.1f s: %s", delay, error)
            await clock.sleep(delay)
        else:
            book.learn(read, now())
            return True
    return False
