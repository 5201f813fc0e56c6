"""Opening the adapters, however long it takes: a worker waits for its servers, it does not die of them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from celeriac.clock import SYSTEM
from celeriac.exceptions import OperationalError
from celeriac.ports import Broker, Clock, ResultStore
from celeriac.worker.outage import About, Outage, Word

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
    word: Word | None = None,
) -> bool:
    """``connect``, given up when ``stop`` is set first; says whether it worked."""
    connecting = asyncio.ensure_future(connect(broker, store, queues, clock=clock, rand=rand, word=word))
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
    word: Word | None = None,
) -> None:
    """Open both, declare the queues; tries again with backoff until it works. One process of those that share
    ``word`` tells of an outage."""
    outage = Outage(About.BROKER, rand=rand, word=word)
    await _patiently([broker.open, lambda: broker.declare(queues)], outage, clock)
    if store is not None:
        await _patiently([store.open], Outage(About.STORE, rand=rand, word=word), clock)


async def _patiently(steps: Sequence[Callable[[], Awaitable[None]]], outage: Outage, clock: Clock) -> None:
    try:
        for step in steps:
            while True:
                try:
                    await step()
                    break
                except OperationalError as error:
                    delay = outage.next()
                    outage.tell(logger, "Cannot connect, next try in %.2f s: %s", delay, error)
                    await clock.sleep(delay)
        outage.over(logger, "Connected after %d failed tries")
    finally:
        outage.reset()  # also of one who gives up
