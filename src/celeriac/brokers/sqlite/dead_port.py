"""The blocking ``DeadLetters`` of SQLite."""

from __future__ import annotations

import time
from collections.abc import Sequence

from celeriac.brokers.sqlite import dead
from celeriac.brokers.sqlite import queues as tables
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.blocking import Pool
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.ports import AdapterOptions

__all__ = ["SQLiteDeadLetters"]


class SQLiteDeadLetters:
    """See ``celeriac.ports.DeadLetters``. What changes letters is one transaction a call."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """See ``DeadLetters.page``."""
        with self._pool.desk() as desk:
            return desk.read(lambda sqlite: dead.page(sqlite, wanted, limit, after), timeout)

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """See ``DeadLetters.get``."""
        with self._pool.desk() as desk:
            return desk.read(lambda sqlite: dead.get(sqlite, keys), timeout)

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters.replay``."""
        rows = tables.prepare(replay.message for replay in replays)
        with self._pool.desk() as desk:
            stayed = desk.write(lambda sqlite: dead.replay(sqlite, replays, rows, time.time()), timeout)
            desk.bells.ring_queues({row[0] for row in rows})
        return stayed

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        with self._pool.desk() as desk:
            return desk.write(lambda sqlite: dead.drop(sqlite, keys), timeout)

    def close(self) -> None:
        """See ``DeadLetters.close``."""
        self._pool.close()
