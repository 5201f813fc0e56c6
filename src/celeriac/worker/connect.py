"""Opening the adapters, however long it takes: a worker waits for its servers, it does not die of them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from celeriac.clock import SYSTEM
from celeriac.exceptions import OperationalError
from celeriac.model.backoff import Backoff
from celeriac.ports import Broker, Clock, ResultStore

__all__ = ["connect", "connected"]

logger = logging.getLogger("celery.worker.consumer")


async def connected(
    broker: Broker,
    store: ResultStore | None,
    queues: Sequence[str],
    stop: asyncio.Event,
    *,
    clock: Clock = SYSTEM,
    rand: Callable[[], float] = random.random,
) -> bool:
    """``connect``, given up when ``stop`` is set first; says whether it worked."""
    connecting = asyncio.ensure_future(connect(broker, store, queues, clock=clock, rand=rand))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if connecting.done():
        connecting.result()
        return True
    connecting.cancel()
    return False


async def connect(
    broker: Broker,
    store: ResultStore | None,
    queues: Sequence[str],
    *,
    clock: Clock = SYSTEM,
    rand: Callable[[], float] = random.random,
) -> None:
    """Open both, declare the queues; tries again with backoff until it works."""
    steps: list[Callable[[], Awaitable[None]]] = [broker.open, lambda: broker.declare(queues)]
    if store is not None:
        steps.append(store.open)
    backoff = Backoff(rand=rand)
    for step in steps:
        while True:
            try:
                await step()
                break
            except OperationalError as error:
                delay = backoff.next()
                if backoff.loud:
                    logger.error("Cannot connect, next try in %.2f s: %s", delay, error)
                await clock.sleep(delay)
    if backoff.failures:
        logger.warning("Connected after %d failed tries", backoff.failures)
