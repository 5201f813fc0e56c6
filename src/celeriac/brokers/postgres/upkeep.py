"""What a schema needs now and then, and what looks at many rows: maintenance, depths, purges. In steps that hold no
lock for long; any number of maintainers may be at it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any

from celeriac.brokers.postgres.limits import freed_columns
from celeriac.brokers.postgres.rows import clean
from celeriac.brokers.postgres.session import LONG, Call, Session
from celeriac.codec import envelope
from celeriac.model.dead import dropped
from celeriac.model.leases import after_lost_lease
from celeriac.model.ledger import Lock, lock_of
from celeriac.model.limits import Seats
from celeriac.ports import STAGE_EXPIRES, AdapterOptions, Depth

__all__ = ["PURGE_CHUNK", "Upkeep", "depths", "locks_of"]

logger = logging.getLogger("celeriac.brokers.postgres")
_RESTORE_CHUNK = 500
PURGE_CHUNK = 2000
_LONGEST_REST = 30.0
#: Seconds for which a promise that has ended is remembered: who comes back with one waits in front.
_SEAT_MEMORY = 60.0
#: No limit, for the server.
_MOST = 2**62


class Upkeep:
    """Maintenance over one session."""

    def __init__(self, session: Session, options: AdapterOptions, zone: tzinfo) -> None:
        self._session = session
        self._options = options
        self._zone = zone
        #: The last round dropped dead letters before their time: said once.
        self._dropping = False

    async def maintain(self) -> float:
        """See ``Broker.maintain``."""
        call = self._session.call
        changed: set[str] = set()
        while restored := await self._session.transaction(self._restore):
            changed.update(restored)
            if len(restored) < _RESTORE_CHUNK:
                break
        while ripe := await call("ripen_all", (), LONG):
            changed.update(queue for (queue,) in ripe)
        if changed:
            await call("wake", (list(changed),))
            self._session.knock(changed)
        waiting = [Seats(key, most) for key, most in await call("parks", (), LONG)]
        if waiting:
            await call("freed", freed_columns(waiting, (), self._options.seat_promise), LONG)
            self._session.knock()
        await self._bury()
        ((due, expiry),) = await call("next_times", (), LONG)
        # A lease given in this moment ends after a whole lease.
        rest = min(_LONGEST_REST, self._options.lease)
        if waiting:
            # Whoever frees a seat wakes the next one; somebody may die between the two.
            rest = min(rest, 1.0)
        return max(0.01, min(rest, rest if due is None else due, rest if expiry is None else expiry))

    async def _restore(self, call: Call) -> list[str]:
        claims, ids, texts, queues = [], [], [], []
        for claim, key, queue, raw, held in await call("expired", (_RESTORE_CHUNK,)):
            delivery = envelope.delivery(raw, token="", queue=queue, zone=self._zone)
            marks = after_lost_lease(delivery.marks, alone=held == 1)
            claims.append(claim)
            ids.append(key)
            texts.append(envelope.remark(delivery, marks))
            queues.append(queue)
        if ids:
            await call("restore", (claims, ids, texts))
        return queues

    async def _bury(self) -> None:
        options = self._options
        limits = (min(options.dead_letter_expires, 1e12), min(options.dead_letter_limit, _MOST))
        size = min(options.dead_letter_max_bytes, _MOST)
        ((surplus,),) = await self._session.call("trim_dead", (*limits, size), LONG)
        if surplus and not self._dropping:
            logger.warning("PostgreSQL at %s: %s", self._session.address.masked, dropped(surplus))
        self._dropping = surplus > 0
        await self._session.call("drop_stages", (STAGE_EXPIRES,), LONG)
        await self._session.call("tidy", (_SEAT_MEMORY,), LONG)

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        if not queues:
            return {}
        return depths(queues, await self._session.call("depth", ([clean(queue) for queue in queues],), LONG))

    async def purge(self, queue: str) -> int:
        """See ``Broker.purge``."""

        async def chunk(call: Call) -> int:
            ((count, marked),) = await call("purge", (clean(queue), PURGE_CHUNK, envelope.LOCK_MARK))
            locks = locks_of(queue, marked)
            if locks:
                await call("free", lock_columns(locks))
            return int(count)

        total = 0
        while count := await self._session.transaction(chunk):
            total += count
        return total


def depths(queues: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Depth]:
    """The answer of ``depth``."""
    return {
        queue: Depth(ready=ready, scheduled=scheduled, leased=leased, dead=dead, oldest=oldest)
        for queue, (_, ready, scheduled, leased, dead, oldest) in zip(queues, rows, strict=True)
    }


def locks_of(queue: str, texts: Sequence[bytes] | None) -> list[Lock]:
    """The locks that messages hold."""
    decoded = [envelope.decode(raw, queue=queue) for raw in texts or ()]
    return [lock for message in decoded if (lock := lock_of(message)) is not None]


def lock_columns(locks: Sequence[Lock]) -> tuple[list[Any], ...]:
    """The arguments of ``free``."""
    return ([clean(lock.key) for lock in locks], [lock.waiting for lock in locks], [lock.started for lock in locks])
