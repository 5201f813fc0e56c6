"""Settles tasks before they start (``acks_late=False``), however long the broker is away. For the fetcher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.model.settle import Accept, Settlement
from celeriac.ports import Broker, Clock
from celeriac.worker.backoff import Backoff

__all__ = ["accept_early"]

logger = logging.getLogger("celery.worker.consumer")


async def accept_early(
    broker: Broker,
    accepts: Sequence[Accept],
    backoff: Backoff,
    *,
    stopping: Callable[[], bool],
    held: Mapping[str, Delivery],
    valid: Callable[[], float],
    clock: Clock,
) -> Sequence[Settlement] | None:
    """The refused ones; None when the child stops before the broker has answered. ``valid()`` is the monotonic time
    until which the leases of what is ``held`` are certain."""
    again = False
    while not stopping():
        try:
            refused = await broker.settle(accepts)
        except OperationalError as error:
            again, delay = True, backoff.next()
            if backoff.loud:
                logger.error("Cannot acknowledge %d tasks, next try in %.1f s: %s", len(accepts), delay, error)
            await clock.sleep(delay)
            continue
        if again and clock.monotonic() < valid():
            # Nobody else can have had them: only the answer to an earlier try was lost.
            refused = [settlement for settlement in refused if settlement.delivery.token not in held]
        return refused
    return None
