"""The number of children of a node: looks twice a second, asks ``model/autoscale.py``, and tells the supervisor.

Runs in the agent; nothing of it runs, and the broker is asked nothing, where ``--autoscale`` is not given. The remote
commands ``autoscale``, ``pool_grow`` and ``pool_shrink`` end here too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.autoscale import Bounds, Look, Scale, scale
from celeriac.ports import Broker, Clock
from celeriac.worker.memory import NodeMemory
from celeriac.worker.slot import LEFT, READY

__all__ = ["Autoscale"]

logger = logging.getLogger("celery.worker.autoscale")

#: Seconds between two looks.
_EVERY = 0.5


class Autoscale:
    """Of one node. ``bounds`` are None while the number is fixed; ``queues()`` are those it takes tasks from,
    ``buried()`` counts the tasks run by children that are gone."""

    def __init__(
        self,
        broker: Broker,
        memory: NodeMemory,
        clock: Clock,
        *,
        bounds: Bounds | None,
        queues: Callable[[], Sequence[str]],
        buried: Callable[[], int],
    ) -> None:
        self.bounds = bounds
        self._broker = broker
        self._memory = memory
        if memory.slots.words.bounds is not None:
            self._bind(*memory.slots.words.bounds)
        self._clock = clock
        self._queues = queues
        self._buried = buried
        self._state = Scale(wanted=self.wanted, since=clock.monotonic())

    @property
    def wanted(self) -> int:
        """How many children there should be now."""
        return self._memory.slots.words.wanted

    async def run(self) -> None:
        """Follow the load until cancelled."""
        while True:
            await self._clock.sleep(_EVERY)
            if self.bounds is not None:
                try:
                    await self.look(self.bounds)
                except OperationalError as error:
                    logger.debug("Cannot see what waits: %s", error)

    async def look(self, bounds: Bounds) -> None:
        """Look once, and decide. Raises ``OperationalError``."""
        depths = (await self._broker.depth(list(self._queues()))).values()
        ages = [depth.oldest for depth in depths if depth.oldest is not None]
        children = [slot for slot in self._memory.slots.taken() if READY <= slot.state < LEFT]
        seen = Look(
            at=self._clock.monotonic(),
            ready=sum(depth.ready for depth in depths),
            oldest=max(ages) if ages else None,
            up=len(children),
            busy=sum(slot.held > 0 for slot in children),
            done=self._buried() + sum(slot.tasks for slot in children),
        )
        before = self._state.wanted
        self._state = scale(self._state, seen, bounds)
        if self._state.wanted != before:
            logger.info(
                "Scaling from %d to %d children: %d tasks ready, %d of %d children busy",
                before,
                self._state.wanted,
                seen.ready,
                seen.busy,
                seen.up,
            )
            self._memory.want(self._state.wanted)

    def bound(self, most: int, fewest: int) -> None:
        """From now on between so many. Raises ValueError for what cannot be."""
        if not 0 <= fewest <= most or not 1 <= most <= self._memory.most:
            raise ValueError(f"autoscale {most},{fewest}: give MAX from 1 to {self._memory.most} and MIN up to MAX")
        self._bind(most, fewest)
        self._set(min(max(self.wanted, fewest), most))

    def grow(self, by: int) -> int:
        """So many more children, if need be beyond the bound; returns their number."""
        return self._change(self.wanted + by)

    def shrink(self, by: int) -> int:
        """So many fewer, if need be below the bound; returns their number. Idle ones go first, busy ones finish."""
        return self._change(self.wanted - by)

    def _change(self, wanted: int) -> int:
        if not 1 <= wanted <= self._memory.most:
            raise ValueError(f"a pool of {wanted} children cannot be: it has 1 to {self._memory.most}")
        if self.bounds is not None:
            self._bind(max(self.bounds.most, wanted), min(self.bounds.fewest, wanted))
        self._set(wanted)
        return wanted

    def _bind(self, most: int, fewest: int) -> None:
        keepalive = self.bounds.keepalive if self.bounds is not None else 30.0
        self.bounds = Bounds(most=most, fewest=fewest, keepalive=keepalive)
        self._memory.slots.words.bounds = (most, fewest)

    def _set(self, wanted: int) -> None:
        self._state = Scale(wanted=wanted, since=self._clock.monotonic(), done=self._state.done)
        self._memory.want(wanted)
