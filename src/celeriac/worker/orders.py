"""What a child and its supervisor say to each other: states and orders in the slot, a bell that wakes either side.

A successor is forked and connected while its predecessor still works, and stands by until it is told to go: so neither
does the node pause, nor do more tasks run at once than it has children.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from celeriac.worker.slot import GO, NO_ORDER, RETIRE, STANDBY, Slot

__all__ = ["Orders"]


class Orders:
    """A child's side. ``bell`` is an eventfd that the supervisor rings after writing an order; ``kick()`` wakes the
    supervisor after writing a state."""

    def __init__(self, slot: Slot, bell: int, kick: Callable[[], None]) -> None:
        self._slot = slot
        self._bell = bell
        self._kick = kick
        self._rung = asyncio.Event()

    def say(self, state: int) -> None:
        """Write the child's state; from any thread."""
        self._slot.live(os.getpid(), state)
        self._kick()

    async def listen(self) -> None:
        """Hear the bell from now on, on this loop."""
        asyncio.get_running_loop().add_reader(self._bell, self._ring)
        self._rung.set()  # it may have rung before

    def _ring(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except OSError:
            # A task has closed it, or taken its number: never hear it again, rather than for ever.
            asyncio.get_running_loop().remove_reader(self._bell)
        self._rung.set()

    async def may_begin(self, stop: asyncio.Event) -> bool:
        """Stand by until told to go; False when told to leave first, or ``stop`` is set."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            while self._slot.order == NO_ORDER and not stop.is_set():
                self.say(STANDBY)
                await self._next(stopping)
        finally:
            stopping.cancel()
        return self._slot.order == GO and not stop.is_set()

    async def _next(self, stopping: asyncio.Future[Any]) -> None:
        ringing: asyncio.Future[Any] = asyncio.ensure_future(self._rung.wait())
        await asyncio.wait({ringing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        ringing.cancel()
        self._rung.clear()

    async def retired(self) -> None:
        """Return when told to leave."""
        while self._slot.order != RETIRE:
            await self._rung.wait()
            self._rung.clear()
