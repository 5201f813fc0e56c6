"""The locks of unique tasks, as a worker meets them: what it notes when it takes such a task.

A task that was taken is no longer replaced by an equal one. One that was replaced while it waited does not run, nor
does any but the last of several messages for one slot of a periodic task. Runs on the I/O loop, one round trip for each
claimed batch that has unique tasks, and one for each written one that has retries of such. Freeing is the completion's
(``plan``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.backoff import Backoff
from celeriac.model.ledger import LOCK, Change, Lock, lock_of, replaced_key, sending_key, waiting_id
from celeriac.model.message import Delivery
from celeriac.model.outcome import Outcome, Postponed, Revoked, Unstarted
from celeriac.model.settle import Completion
from celeriac.ports import Broker, Clock, Ledger

__all__ = ["begin_locked", "renewals"]

logger = logging.getLogger("celery.worker")

#: Seconds after which one is offered again that may be replaced at this moment.
_SOON = 0.5


async def begin_locked(
    broker: Broker,
    deliveries: Sequence[Delivery],
    backoff: Backoff,
    stopping: Callable[[], bool],
    clock: Clock,
    *,
    patience: float,
) -> Mapping[str, Outcome]:
    """Note in the locks of ``deliveries`` that their tasks start; returns, by token, those that are not to run: they
    were replaced, or ``stopping()`` was true before the ledger has answered.

    A ledger that does not answer for ``patience`` seconds, the length of a lease, does not hold them up any longer: if
    the broker is away their leases are over, else it is full and has to be drained.
    """
    found = [(delivery, lock) for delivery in deliveries if (lock := lock_of(delivery.message)) is not None]
    if not found or not isinstance(broker, Ledger):
        return {}
    deadline = clock.monotonic() + patience
    while True:
        try:
            return await _begin(broker, found)
        except OperationalError as error:
            if clock.monotonic() >= deadline:
                logger.warning("Cannot note the start of %d unique tasks: %s", len(found), error)
                return {}
            await clock.sleep(backoff.next())
        if stopping():
            return {delivery.token: Unstarted() for delivery, _ in found}


async def _begin(broker: Ledger, found: Sequence[tuple[Delivery, Lock]]) -> Mapping[str, Outcome]:
    """Repeated when an answer was lost: what was noted then is noted."""
    made = await broker.change_ledger([lock.begins() for _, lock in found])
    # Not held by one that waits: it was taken before, or lost its lock to a later one, or to time.
    unsure = [pair for pair, done in zip(found, made, strict=True) if not done]
    if not unsure:
        return {}
    graves = [replaced_key(delivery.message.id) for delivery, _ in unsure]
    answer = await broker.read_ledger([*graves, *(lock.key for _, lock in unsure)])
    stays: dict[str, Outcome] = {}
    others: list[tuple[Delivery, str]] = []
    for (delivery, lock), successor, holder in zip(unsure, answer, answer[len(unsure) :], strict=False):
        if successor is not None:
            stays[delivery.token] = Revoked(f"replaced by {successor.decode('utf-8', 'replace')}")
        elif holder is not None and waiting_id(holder)[0] == lock.holder:
            continue
        elif lock.sole and (holder is not None or not lock.kept):  # one that is kept is gone with its time
            stays[delivery.token] = Revoked("another run of this slot")
        elif holder is not None:
            others.append((delivery, sending_key(waiting_id(holder)[0])))
    # One that is just being sent, on another server, may take its place, or not.
    marks = await broker.read_ledger([mark for _, mark in others]) if others else ()
    stays |= {d.token: Postponed(_SOON) for (d, _), mark in zip(others, marks, strict=True) if mark is not None}
    return stays


def renewals(completions: Sequence[Completion], now: float) -> list[Change]:
    """What keeps the locks of tasks that will be tried again: it counts from the time at which they are due."""
    changes = []
    for completion in completions:
        for message in completion.publish:
            if LOCK in message.headers and message.id == completion.ending.delivery.message.id:
                lock = lock_of(message)
                if lock is not None:
                    wait = 0.0 if message.due is None else max(0.0, message.due - now)
                    changes.append(Change(lock.key, lock.started, lock.started, lock.life + wait))
    return changes
