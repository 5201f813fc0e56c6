"""What this process has given back itself, for a moment: the server shows it as redelivered, as if somebody had died.

Without this each task that is given back unstarted would be taken for one that may have killed a worker, and be run
alone. Other processes do not know, and do so: that costs time and nothing else. And one of those may have run it since,
and died of it: so the delivery says that it was ``returned``, and whoever runs it asks for a verdict.
"""

from __future__ import annotations

import time

from msgspec.structs import replace

from celeriac.model.message import Delivery

__all__ = ["Returned"]

#: Seconds for which it is remembered, and most that are.
_LIFE, _MOST = 5.0, 20_000
#: (server, queue, task id) → until when, and the delivery as it was before.
_memory: dict[tuple[str, str, str], tuple[float, Delivery]] = {}


class Returned:
    """The memory of one server's messages; shared by all connections of this process."""

    def __init__(self, server: str) -> None:
        self._server = server

    def note(self, delivery: Delivery) -> None:
        """It goes back now, and had not been run."""
        if len(_memory) >= _MOST:
            _memory.clear()
        _memory[self._server, delivery.queue, delivery.message.id] = time.monotonic() + _LIFE, delivery

    def look(self, delivery: Delivery) -> Delivery:
        """As it was before it was given back from here, or as it is."""
        until, before = _memory.pop((self._server, delivery.queue, delivery.message.id), (0.0, delivery))
        if until < time.monotonic() or delivery.marks.expired_leases > before.marks.expired_leases + 1:
            return delivery  # where the server counts: somebody else has lost it since
        return replace(delivery, redelivered=before.redelivered, returned=True, marks=before.marks)
