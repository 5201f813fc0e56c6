"""The locks of unique tasks, as a worker meets them: what it notes when it takes such a task.

A task that was taken is no longer replaced by an equal one; one that was replaced while it waited does not run. Runs on
the I/O loop, one round trip for each claimed batch that has unique tasks, and one for each written one that has retries
of such. Freeing is the completion's (``plan``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.ledger import LOCK, Change, Lock, lock_of, replaced_key
from celeriac.model.message import Delivery
from celeriac.model.outcome import Revoked, Unstarted
from celeriac.model.settle import Completion
from celeriac.ports import Broker, Clock, Ledger
from celeriac.worker.backoff import Backoff

__all__ = ["begin_locked", "renewals"]

logger = logging.getLogger("celery.worker")


async def begin_locked(
    broker: Broker, deliveries: Sequence[Delivery], backoff: Backoff, stopping: Callable[[], bool], clock: Clock
) -> Mapping[str, Revoked | Unstarted]:
    """Note in the locks of ``deliveries`` that their tasks start; returns, by token, what becomes of those that do not:
    they were replaced, or ``stopping()`` is true before the broker has answered.

    Asks again while the broker is away: one that was replaced has been told so, and must not run.
    """
    found = [(delivery, lock) for delivery in deliveries if (lock := lock_of(delivery.message)) is not None]
    if not found or not isinstance(broker, Ledger):
        return {}
    while not stopping():
        try:
            return await _begin(broker, found)
        except OperationalError as error:
            delay = backoff.next()
            if backoff.loud:
                count = len(found)
                logger.error("Cannot note the start of %d unique tasks, next try in %.1f s: %s", count, delay, error)
            await clock.sleep(delay)
    return {delivery.token: Unstarted() for delivery, _ in found}


async def _begin(broker: Ledger, found: Sequence[tuple[Delivery, Lock]]) -> Mapping[str, Revoked]:
    made = await broker.change_ledger([lock.begins() for _, lock in found])
    # Not held by one that waits: it was taken before (or our first try had worked), or lost its lock to a later one, or
    # to time.
    unsure = [delivery for (delivery, _), done in zip(found, made, strict=True) if not done]
    graves = await broker.read_ledger([replaced_key(each.message.id) for each in unsure]) if unsure else ()
    return {
        delivery.token: Revoked(f"replaced by {successor.decode('utf-8', 'replace')}")
        for delivery, successor in zip(unsure, graves, strict=True)
        if successor is not None
    }


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
