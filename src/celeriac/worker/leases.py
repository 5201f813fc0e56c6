"""Renews the leases of everything a child holds, and says until when they are certain.

Runs on the I/O loop, which is late by milliseconds beside Python code and frozen while C code holds the GIL; the runner
therefore compares the clock with ``valid_until`` before it starts a task.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.ports import Broker, Clock

__all__ = ["Leases"]

logger = logging.getLogger("celery.worker")


class Leases:
    """Extends ``held`` (token → delivery) every third of the lease; ``lost(deliveries)`` hears of those that are
    gone."""

    def __init__(
        self,
        broker: Broker,
        held: Mapping[str, Delivery],
        clock: Clock,
        *,
        lease: float,
        lost: Callable[[Sequence[Delivery]], None],
        valid: Callable[[float], None],
    ) -> None:
        self._broker = broker
        self._held = held
        self._clock = clock
        self._lease = lease
        self._lost = lost
        self._valid = valid
        self._until = 0.0
        #: When the first of the claims was sent that were answered since the last renewal was.
        self._claimed = math.inf
        self._hurry = asyncio.Event()

    def claimed(self, began: float) -> None:
        """A claim has brought something: its leases began soon after ``began``, in monotonic seconds. Called before
        that is held: another renewal may have been sent meanwhile, and knows nothing of them."""
        self._claimed = min(self._claimed, began)
        until = began + self._lease
        self._certain(min(until, self._until) if self._held else until)

    def _certain(self, until: float) -> None:
        self._until = until
        self._valid(until)

    def hurry(self) -> None:
        """Renew now: what was claimed after an outage waits for it."""
        self._hurry.set()

    async def run(self) -> None:
        """Renew until cancelled."""
        every = self._lease / 3
        while True:
            await self._pause(every)
            if not self._held:
                # Nothing to lose: what is claimed later has a fresh lease.
                self._certain(self._clock.monotonic() + self._lease)
                continue
            try:
                await self.renew()
            except (OperationalError, TimeoutError) as error:
                cause = str(error) or f"no answer within {self._lease / 2:g} s"
                logger.warning("Cannot renew %d leases: %s", len(self._held), cause)

    async def _pause(self, seconds: float) -> None:
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({sleeping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            hurried.cancel()
        self._hurry.clear()

    async def renew(self) -> None:
        """Renew once. Raises OperationalError, or TimeoutError after half a lease."""
        before, self._claimed = self._clock.monotonic(), math.inf
        held = list(self._held.values())
        async with asyncio.timeout(self._lease / 2):
            lost = await self._broker.extend(held)
        if lost:
            # First of all: what has not started yet must not start under the new time.
            self._lost(lost)
        # Counted from before the call: the server's clock started later.
        self._certain(min(before, self._claimed) + self._lease)
