"""Claims that tell the epoch of rules which are kept elsewhere: one question more for each claim that ends.

A rule that was written before a message was taken is told with it, as the epoch is read after the taking. When it
cannot be read, what was taken goes back, and nothing is taken before the rules' server answers again. Called by
``broker_port.py``, on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.model.settle import Release
from celeriac.ports import Broker, Rules

__all__ = ["Claims"]

logger = logging.getLogger("celeriac.beside")

#: Seconds between two looks at the rules while a claim waits: it ends within a second after they changed.
_LOOK = 0.6


class Claims:
    """Of one broker instance; ``rules`` is the other server."""

    def __init__(self, inner: Broker, rules: Rules) -> None:
        self._inner = inner
        self._rules = rules
        #: See ``Rules.epoch``.
        self.epoch = 0
        #: The last epoch that was read, by whatever claim.
        self._known = 0
        #: The rules' server did not answer: it is asked before anything is taken.
        self._away = False
        #: Gives back what claims have taken and could not tell.
        self._returning: set[asyncio.Task[None]] = set()

    async def claim(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        if self._returning:
            await asyncio.wait(self._returning)
        if self._away:
            await self._read()
        if wait > 0:
            taken = await self._waiting(queues, limit, wait)
        else:
            taken = await self._inner.claim(queues, limit=limit, wait=wait)
        try:
            self.epoch = await self._read()
        except (OperationalError, asyncio.CancelledError):
            self._give_back(taken)
            raise
        return taken

    async def settled(self) -> None:
        """Nothing is being given back any more."""
        if self._returning:
            await asyncio.wait(self._returning)

    async def _read(self) -> int:
        """The epoch now; what changed is read again by whoever obeys it."""
        self._away = True
        self._known = (await self._rules.rules(self._known)).epoch
        self._away = False
        return self._known

    async def _waiting(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Delivery]:
        """The inner claim, ended when the rules change, or their server is away."""
        claiming = asyncio.ensure_future(self._inner.claim(queues, limit=limit, wait=wait))
        try:
            while not (await asyncio.wait({claiming}, timeout=_LOOK))[0]:
                if await self._read() != self.epoch:
                    claiming.cancel()
                    await asyncio.wait({claiming})
        except (OperationalError, asyncio.CancelledError):
            claiming.cancel()
            claiming.add_done_callback(self._left)
            raise
        return () if claiming.cancelled() else claiming.result()

    def _left(self, claiming: asyncio.Future[Sequence[Delivery]]) -> None:
        """A claim ended that nobody waits for any more."""
        if not claiming.cancelled() and claiming.exception() is None:
            self._give_back(claiming.result())

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            task = asyncio.get_running_loop().create_task(self._release(deliveries))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self._inner.settle([Release(delivery) for delivery in deliveries])
        except OperationalError as error:
            logger.debug("Cannot give back %d tasks, their leases will: %s", len(deliveries), error)
