"""The blocking ``Reader`` of SQLite: what ``.get()`` and ``update_state`` end in."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from celeriac.brokers.sqlite import chords, records
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.bells import ANY_RESULT, result_topic
from celeriac.brokers.sqlite.blocking import Desk, Pool
from celeriac.brokers.sqlite.boot import moment
from celeriac.model.chord import NewChord
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions

__all__ = ["SQLiteReader"]

#: Seconds after which a waiter looks without having been rung.
_LOOK_AGAIN = 0.5


class SQLiteReader:
    """Reads and waits for results from any thread; see the ``Reader`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)
        self._timeout = options.connect_timeout
        self._chord_token = options.chord_token

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        now = time.time()
        with self._pool.desk() as desk:
            found = desk.read(lambda sqlite: [records.find(sqlite, task_id, now) for task_id in ids], timeout)
        return [None if record is None else record[0] for record in found]

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """Block until a record of one of the ids is written. A terminal one written before ends it at once."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._pool.desk() as desk:
            bell = desk.bells.hang(result_topic(ids[0]) if len(ids) == 1 else ANY_RESULT)
            try:
                look = _Look(desk, ids, self._timeout)
                while True:
                    done = look.everywhere()
                    if done is not None:
                        return done
                    again = time.monotonic() + _LOOK_AGAIN
                    while (left := min(again, deadline or again) - time.monotonic()) > 0:
                        if bell.wait(left) and (done := look.rung()) is not None:
                            return done
                    if deadline is not None and time.monotonic() >= deadline:
                        return look.everywhere()
            finally:
                bell.close()

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """Write records and wake their waiters."""
        if not results:
            return
        with self._pool.desk() as desk:
            desk.write(lambda sqlite: records.put(sqlite, results, time.time()), timeout)
            desk.bells.ring({ANY_RESULT, *(result_topic(result.id) for result in results)})

    def forget(self, ids: Sequence[str], *, timeout: float) -> None:
        """Drop records."""
        with self._pool.desk() as desk:
            desk.write(lambda sqlite: records.forget(sqlite, ids), timeout)

    def open_chords(self, new: Sequence[NewChord], *, timeout: float) -> None:
        """Write chords before their members are sent."""
        with self._pool.desk() as desk:
            desk.write(lambda sqlite: chords.open_all(sqlite, new, moment(self._chord_token)), timeout)

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """Let a chord wait for more members."""
        with self._pool.desk() as desk:
            desk.write(lambda sqlite: chords.grow(sqlite, chord, by, moment(self._chord_token)), timeout)

    def save_group(self, group: str, body: bytes, *, expires: float | None, timeout: float) -> None:
        """Keep a group's result tuple."""
        self.put([StoredResult(_saved(group), body, True, expires)], timeout=timeout)

    def load_group(self, group: str, *, timeout: float) -> bytes | None:
        """What ``save_group`` has kept."""
        return self.get([_saved(group)], timeout=timeout)[0]

    def drop_group(self, group: str, *, timeout: float) -> None:
        """Forget what ``save_group`` has kept."""
        self.forget([_saved(group)], timeout=timeout)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._pool.close()


def _saved(group: str) -> str:
    """Under what a group is kept among the records: no task has such an id."""
    return f"\0group\0{group}"


class _Look:
    """Where a waiter looks for one of its ids."""

    def __init__(self, desk: Desk, ids: Sequence[str], timeout: float) -> None:
        self._desk = desk
        self._ids = ids
        self._wanted = frozenset(ids)
        self._timeout = timeout
        self._seen = 0

    def everywhere(self) -> str | None:
        """An id with a terminal record."""
        now = time.time()

        def look(sqlite: sqlite3.Connection) -> str | None:
            self._seen = records.last(sqlite)
            for task_id in self._ids:
                found = records.find(sqlite, task_id, now)
                if found is not None and found[1]:
                    return task_id
            return None

        return self._desk.read(look, self._timeout)

    def rung(self) -> str | None:
        """An id with a new record. One that waits for many looks at what is new alone: it is rung for all of them."""
        if len(self._ids) == 1:
            return self._ids[0]
        for seq, task_id in self._desk.bare(lambda sqlite: records.written_since(sqlite, self._seen), self._timeout):
            self._seen = seq
            if task_id in self._wanted:
                return task_id
        return None
