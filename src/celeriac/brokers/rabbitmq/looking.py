"""A look at the dead letters: all of them are taken, the newest wanted ones kept, and all go back in their order.

While somebody looks, others wait: the queue is consumed exclusively. Pure but for ``look``, which workers use.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.deaths import record_of
from celeriac.brokers.rabbitmq.errors import Closed, refused
from celeriac.brokers.rabbitmq.frames import Event
from celeriac.brokers.rabbitmq.layout import DEAD, NOT_FOUND, passive
from celeriac.brokers.rabbitmq.wire import Wire
from celeriac.model.dead import DeadFilter, DeadRecord

__all__ = ["ACCESS_REFUSED", "CONSUME", "Newest", "look"]

#: Seconds without a further letter after which the server is asked whether there are any, and in which all must come.
_QUIET, _LONGEST = 0.1, 30.0
ACCESS_REFUSED = 403
#: All letters, for us alone.
CONSUME: tuple[Any, ...] = (m.BASIC_CONSUME, 0, DEAD, "dead", False, False, True, False, {})


class Newest:
    """The newest letters that are wanted, among all that are shown, up to ``limit``; only those behind ``after``."""

    def __init__(self, wanted: DeadFilter, limit: int, after: tuple[float, str] | None = None) -> None:
        self._wanted = wanted
        self._limit = limit
        self._after = after
        self._heap: list[tuple[float, str, int, DeadRecord]] = []
        self._count = 0
        #: More were wanted than there was room for.
        self.more = False

    def show(self, event: Event) -> None:
        """One letter."""
        record = record_of(event.header, event.body)
        place = (record.at, record.key)
        if (self._after is not None and place >= self._after) or not self._wanted.matches(record):
            return
        self._count += 1
        item = (*place, self._count, record)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, item)
        else:
            self.more = True
            if self._heap:
                heapq.heappushpop(self._heap, item)

    def found(self) -> list[DeadRecord]:
        """The newest first."""
        return [item[3] for item in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


async def look(wire: Wire, wanted: DeadFilter, limit: int) -> list[DeadRecord]:
    """The newest that are wanted. Raises ``OperationalError``."""
    newest, news = Newest(wanted, limit), asyncio.Event()

    def hear(event: Event) -> None:
        if event.number == m.BASIC_DELIVER:
            newest.show(event)
            news.set()

    begin = wire.loop.time()
    while True:
        channel = await wire.channel(hear)
        try:
            await channel.ask(*CONSUME)
            while wire.loop.time() - begin < _LONGEST:
                news.clear()
                try:
                    async with asyncio.timeout(_QUIET):
                        await news.wait()
                except TimeoutError:
                    if (await channel.ask(*passive(DEAD)))[1] == 0:
                        break
            return newest.found()
        except Closed as error:
            if error.code == NOT_FOUND:
                return []
            if error.code != ACCESS_REFUSED or "exclusive" not in error.text or wire.loop.time() - begin > _LONGEST:
                raise refused(wire.address, error) from None
            await asyncio.sleep(0.05)
        finally:
            await channel.close()
