"""Renews the lease of a task whose child cannot: C code that keeps the interpreter's lock freezes its I/O loop too.

Runs in the agent, which sees the child's slot: the token of what runs there, and when its loop last beat. Only the
running task is kept; what was claimed behind it goes back when its lease ends, and that is right. A child that is dead,
or stopped by a signal, is not kept: nothing runs there. The supervisor blanks the slot of a dead one, unless it is
stopped itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery, Malformed
from celeriac.ports import Broker, Clock
from celeriac.worker.slot import Slot

__all__ = ["StandIn"]

logger = logging.getLogger("celery.worker")

#: States of a process in ``/proc``: zombie, dead, stopped, stopped by a debugger.
_NOT_RUNNING = frozenset({b"Z", b"X", b"T", b"t"})
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
        running = [(slot.running(), slot) for slot in self._slots() if slot.beat < since]
        return [task.token for task, slot in running if task is not None and runs(slot.pid)]


def runs(pid: int) -> bool:
    """Whether the process is there and neither dead nor stopped; True where the system does not tell (no ``/proc``)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in _NOT_RUNNING
    except FileNotFoundError:
        return not os.path.exists("/proc/self/stat")
    except OSError:
        return True
