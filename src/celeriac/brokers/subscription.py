"""A subscription that outlives connections, and what it has heard; knows no server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from celeriac.exceptions import OperationalError

__all__ = ["Subscription"]

logger = logging.getLogger("celeriac.brokers")

_RECONNECT_FIRST, _RECONNECT_LAST = 0.1, 5.0
#: Longest time that an event waits for a subscription of this very process, in seconds.
_SUBSCRIBING = 2.0
#: Most messages that wait for a slow listener; the oldest go first. Lossy by contract.
_BACKLOG = 10_000

T = TypeVar("T")


class Subscription(Generic[T]):
    """To ``topic``. An adapter says how to subscribe, and tells what it hears, when it stands, and when it is lost."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._heard: asyncio.Queue[T | None] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._stands = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep())

    async def _subscribe(self) -> None:
        """Subscribe anew, whatever there was before; ``OperationalError`` when that cannot be."""
        raise NotImplementedError

    def close(self) -> None:
        """End ``messages``, and the connection."""
        self._keeper.cancel()
        self._heard.put_nowait(None)
        self._stands.set()

    async def subscribed(self) -> None:
        """Wait a moment for a subscription that is under way."""
        if not self._stands.is_set():
            try:
                await asyncio.wait_for(self._stands.wait(), _SUBSCRIBING)
            except TimeoutError:
                pass

    async def messages(self) -> AsyncIterator[T]:
        """What is heard, until it is closed."""
        while (message := await self._heard.get()) is not None:
            yield message

    def _hear(self, message: T) -> None:
        if self._heard.qsize() >= _BACKLOG:
            self._heard.get_nowait()
        self._heard.put_nowait(message)

    async def _keep(self) -> None:
        pause = _RECONNECT_FIRST
        while True:
            self._lost.clear()
            try:
                await self._subscribe()
            except OperationalError as error:
                logger.debug("listening to %s: %s", self._topic, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT_LAST)
            else:
                pause = _RECONNECT_FIRST
                await self._lost.wait()
