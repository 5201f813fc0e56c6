"""The asyncio ``ResultStore`` of SQLite: results and chords of workers whose broker is another server, their reading.

What happens in the file is in records.py and chords.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from celeriac.brokers.sqlite import chords, records
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.bells import ANY_RESULT, result_topic
from celeriac.brokers.sqlite.blocking import Desk
from celeriac.brokers.sqlite.boot import moment
from celeriac.brokers.sqlite.session import Session
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, Traits

__all__ = ["SQLiteStore"]


class SQLiteStore:
    """Result records and chords in a file; see the ``ResultStore`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self.traits = Traits(durable=True, native_delay=True, server=("sqlite", address.path))
        self._wait = options.chord_token
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
            while count := desk.write(lambda sqlite: chords.sweep(sqlite, moment(self._wait)), timeout):
                dropped += count
            return dropped

        return await self._session.aside(work)

    # ------------------------------------------------------------ chords

    async def open_chords(self, new: Sequence[NewChord]) -> None:
        """Write chords before their members are sent."""
        if new:
            await self._session.write(
                lambda sqlite: chords.open_all(sqlite, new, moment(self._wait)), rows=3 * len(new)
            )

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """Add members to their chords; returns those that are complete and held by ``token`` now."""
        if not parts:
            return ()
        return await self._session.write(
            lambda sqlite: chords.join(sqlite, parts, token, moment(self._wait)), rows=2 * len(parts)
        )

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """The complete chord, when ``token`` holds it; aside of the loop, for it may have many members."""

        def work(desk: Desk, timeout: float) -> Gathered | None:
            if not desk.write(lambda sqlite: chords.renew(sqlite, chord, token, moment(self._wait)), timeout):
                return None
            return desk.read(lambda sqlite: chords.lent(sqlite, chord, token), timeout)

        return await self._session.aside(work)

    async def close_chord(self, closing: Closing) -> bool:
        """Let a chord be done; False when its token is gone."""
        return await self._session.write(lambda sqlite: chords.close(sqlite, closing, moment(self._wait)), rows=3)

    async def grow_chord(self, chord: str, by: int) -> None:
        """Let a chord wait for more members."""
        await self._session.write(lambda sqlite: chords.grow(sqlite, chord, by, moment(self._wait)), rows=1)

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """Complete chords that nobody is about to close; one look into an index when there are none."""
        if not await self._session.bare(lambda sqlite: chords.is_due(sqlite, moment(self._wait))):
            return ()

        def look(desk: Desk, timeout: float, most: int) -> list[str]:
            return desk.write(lambda sqlite: chords.look(sqlite, token, most, moment(self._wait)), timeout)

        def lent(desk: Desk, timeout: float, chord: str) -> Gathered | None:
            return desk.read(lambda sqlite: chords.lent(sqlite, chord, token), timeout)

        def work(desk: Desk, timeout: float) -> list[Gathered]:
            taken: list[str] = []
            while len(taken) < limit and desk.bare(lambda sqlite: chords.is_due(sqlite, moment(self._wait)), timeout):
                taken += look(desk, timeout, limit - len(taken))
            found = [lent(desk, timeout, chord) for chord in taken]
            return [chord for chord in found if chord is not None]

        return await self._session.aside(work)
