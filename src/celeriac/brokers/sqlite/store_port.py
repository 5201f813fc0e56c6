"""The asyncio ``ResultStore`` of SQLite: results of workers whose broker is another server, and their reading."""

from __future__ import annotations

import time
from collections.abc import Sequence

from celeriac.brokers.sqlite import records
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.bells import ANY_RESULT, result_topic
from celeriac.brokers.sqlite.blocking import Desk
from celeriac.brokers.sqlite.session import Session
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, Traits

__all__ = ["SQLiteStore"]


class SQLiteStore:
    """Result records in a file; see the ``ResultStore`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self.traits = Traits(durable=True, native_delay=True, server=("sqlite", address.path))
        self._session = Session(address, options.connect_timeout)

    async def open(self) -> None:
        """Open the file, creating it when there is none."""
        await self._session.open()

    async def close(self) -> None:
        """Close the file."""
        await self._session.close()

    async def put(self, results: Sequence[StoredResult]) -> None:
        """Write records and wake their waiters."""
        if not results:
            return
        await self._session.write(lambda sqlite: records.put(sqlite, results, time.time()), rows=len(results))
        self._session.bells.ring({ANY_RESULT, *(result_topic(result.id) for result in results)})

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        now = time.time()
        found = await self._session.read(lambda sqlite: [records.find(sqlite, task_id, now) for task_id in ids])
        return [None if record is None else record[0] for record in found]

    async def forget(self, ids: Sequence[str]) -> None:
        """Drop records."""
        if ids:
            await self._session.write(lambda sqlite: records.forget(sqlite, ids), rows=len(ids))

    async def sweep(self) -> int:
        """Drop expired records, aside of the loop; returns how many."""

        def work(desk: Desk, timeout: float) -> int:
            dropped = 0
            while count := desk.write(lambda sqlite: records.sweep(sqlite, time.time()), timeout):
                dropped += count
            return dropped

        return await self._session.aside(work)
