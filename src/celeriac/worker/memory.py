"""What the processes of a node share: the slots, and a way to wake the supervisor when something there has changed."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from celeriac.worker.kept import KeptOrders
from celeriac.worker.outage import Word
from celeriac.worker.slot import READY, TERMINATED, Slots

__all__ = ["NodeMemory"]


class NodeMemory(Struct, frozen=True):
    """As an agent sees it. ``most``: children that the slots have room for; ``kept``: orders by remote control;
    ``word``: which of the processes tells of an outage."""

    slots: Slots
    kick: Callable[[], None]
    most: int
    kept: KeptOrders | None = None
    word: Word | None = None

    def want(self, children: int) -> None:
        """Tell the supervisor how many children there should be."""
        if self.slots.words.wanted != children:
            self.slots.words.wanted = children
            self.kick()

    def terminated(self, pid: int) -> None:
        """This child is ended on request: nobody must wonder who killed it."""
        for slot in self.slots.taken():
            if slot.pid == pid:
                slot.order = TERMINATED

    def unready(self) -> str:
        """Why this node cannot be relied on to run tasks now, or nothing."""
        words = self.slots.words
        if words.failing:
            return f"its children die as they start, {words.failing} times in a row"
        working = [slot for slot in self.slots.taken() if slot.state >= READY]
        if not working:
            return "" if not words.wanted else "none of its children has come up"
        return "" if any(slot.connected for slot in working) else "its children cannot reach the broker"
