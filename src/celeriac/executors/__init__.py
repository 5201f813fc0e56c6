"""Where task bodies run: on one thread (``inline``), on many (``threads``), on an event loop (``coroutines``).

An executor is fed deliveries from the I/O thread in batches and hands back what ``run`` made of them, in batches too.
It knows nothing of brokers, apps or plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from celeriac.model.message import Delivery

__all__ = ["Done", "Executor"]

#: Takes finished work, from any thread.
Done = Callable[[Sequence[Any]], None]


class Executor(Protocol):
    """A place to run deliveries. All methods may be called from any thread."""

    #: Deliveries that run at the same time at most.
    limit: int

    def feed(self, batch: Sequence[Delivery]) -> None:
        """Take deliveries to run, in order."""
        ...

    def recall(self) -> list[Delivery]:
        """Give back every delivery that has not started."""
        ...

    def active(self) -> list[tuple[Delivery, float]]:
        """What runs now, with its start (monotonic seconds)."""
        ...

    def waiting(self) -> int:
        """How many deliveries have not started."""
        ...

    def tick(self, now: float) -> None:
        """Called a few times a second while something runs: enforce soft limits. ``now`` in monotonic seconds."""
        ...

    def cancel(self, token: str) -> bool:
        """End a running delivery where the executor can; says whether it could."""
        ...

    def stop(self) -> None:
        """Return from ``serve`` once what was fed is done. Idempotent."""
        ...
