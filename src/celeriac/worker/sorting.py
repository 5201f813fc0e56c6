"""A claimed batch, sorted by what is to be done with each delivery. Called by the fetcher; does none of it itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from celeriac.model import outcome as o
from celeriac.model.limits import SEAT
from celeriac.model.message import NO_MARKS, Delivery
from celeriac.model.plan import exhausted
from celeriac.model.settle import Completion
from celeriac.worker.runner import Entry

__all__ = ["Batch", "sort"]

#: ``Refusals.of``.
Refusal = Callable[[Delivery, float, Mapping[str, o.Repeated]], o.Outcome | Completion | None]


class Batch:
    """Deliveries to run, by how they run, and those that are not to run."""

    __slots__ = ("concluded", "coroutines", "ended", "limited", "sync")

    def __init__(self) -> None:
        self.sync: list[Delivery] = []
        self.coroutines: list[Delivery] = []
        #: They may run when the broker permits it.
        self.limited: list[Delivery] = []
        #: Not due, and put off.
        self.concluded: list[Completion] = []
        #: How those end that do not even start.
        self.ended: list[tuple[Delivery, o.Outcome]] = []


def sort(
    deliveries: Sequence[Delivery],
    refusal: Refusal,
    entry: Callable[[str], Entry | None],
    *,
    now: float,
    done: Mapping[str, o.Repeated],
) -> Batch:
    """``entry(name)`` is what this child knows of a task, ``done`` what ``Refusals.repeated`` has found."""
    batch = Batch()
    for delivery in deliveries:
        message = delivery.message
        outcome = refusal(delivery, now, done)
        if isinstance(outcome, Completion):
            batch.concluded.append(outcome)
        elif outcome is not None:
            batch.ended.append((delivery, outcome))
        elif (found := entry(message.task)) is None:
            batch.ended.append((delivery, o.Unknown()))
        elif delivery.marks is not NO_MARKS and exhausted(delivery.marks, found.options):
            batch.ended.append((delivery, o.Lost()))
        elif found.options.limited or SEAT in message.headers:  # type: ignore[union-attr]
            batch.limited.append(delivery)
        elif found.tracer.is_async:
            batch.coroutines.append(delivery)
        else:
            batch.sync.append(delivery)
    return batch
