"""The locks of unique tasks, as a worker meets them: what it notes when it takes such a task.

A task that was taken is no longer replaced by an equal one; one that was replaced while it waited does not run. Runs on
the I/O loop, one round trip for each claimed batch that has unique tasks. Freeing is the completion's (``plan``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.ledger import lock_of, replaced_key
from celeriac.model.message import Delivery
from celeriac.model.outcome import Revoked
from celeriac.ports import Broker, Ledger

__all__ = ["begin_locked"]

logger = logging.getLogger("celery.worker")


async def begin_locked(broker: Broker, deliveries: Sequence[Delivery]) -> Mapping[str, Revoked]:
    """Note in the locks of ``deliveries`` that their tasks start; returns, by token, those that were replaced.

    While the ledger is away they run: the lock's life time and the record of the task say the rest.
    """
    found = [(delivery, lock) for delivery in deliveries if (lock := lock_of(delivery.message)) is not None]
    if not found or not isinstance(broker, Ledger):
        return {}
    try:
        made = await broker.change_ledger([lock.begins() for _, lock in found])
        # Not held by one that waits: it was taken before, or lost its lock to a later one, or to time.
        unsure = [delivery for (delivery, _), done in zip(found, made, strict=True) if not done]
        graves = await broker.read_ledger([replaced_key(each.message.id) for each in unsure]) if unsure else ()
    except OperationalError as error:
        logger.warning("Cannot note the start of %d unique tasks: %s", len(found), error)
        return {}
    return {
        delivery.token: Revoked(f"replaced by {successor.decode('utf-8', 'replace')}")
        for delivery, successor in zip(unsure, graves, strict=True)
        if successor is not None
    }
