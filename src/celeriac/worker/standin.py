"""Renews the lease of a task whose child cannot: C code that keeps the interpreter's lock freezes its I/O loop too.

Runs in the agent, which sees the child's slot: the token of what runs there, and when its loop last beat. Only the
running task is kept; what was claimed behind it goes back when its lease ends, and that is right. Ends with the child:
the supervisor blanks the slot of a dead one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery, Malformed
from celeriac.ports import Broker, Clock
from celeriac.worker.slot import Slot

__all__ = ["StandIn"]

logger = logging.getLogger("celery.worker")

_NOTHING = Malformed(reason="", raw=b"")


class StandIn:
    """Looks at ``slots()``, those of the living children, every third of the lease, in seconds."""

    def __init__(self, broker: Broker, slots: Callable[[], Iterable[Slot]], clock: Clock, *, lease: float) -> None:
        self._broker = broker
        self._slots = slots
        self._clock = clock
        self._lease = lease

    async def run(self) -> None:
        """Renew until cancelled."""
        every = self._lease / 3
        while True:
            await self._clock.sleep(every)
            tokens = self._silent(self._clock.monotonic() - every)
            if tokens:
                try:
                    await self._broker.extend([Delivery(message=_NOTHING, token=each, queue="") for each in tokens])
                except OperationalError as error:
                    logger.warning("Cannot renew the leases of %d busy children: %s", len(tokens), error)

    def _silent(self, since: float) -> list[str]:
        """Tokens of tasks in children whose loop has not beaten since then."""
        running = [(slot.running(), slot.beat) for slot in self._slots()]
        return [task.token for task, beat in running if task is not None and beat < since]
