"""The blocking ``Reader`` of PostgreSQL: what ``.get()`` and ``update_state`` end in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.blocking import Desk, Pool
from celeriac.brokers.postgres.rows import as_new, clean, json_text, result_columns
from celeriac.codec.envelope import new_id
from celeriac.exceptions import OperationalError
from celeriac.model.chord import NewChord
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions

__all__ = ["PostgresReader"]

#: Seconds after which a waiter looks without having been told, and again says that it waits.
_LOOK_AGAIN = 5.0
#: Without LISTEN: the shortest and the longest pause between two looks.
_POLL_FIRST, _POLL_LAST = 0.005, 0.25
#: Waiters for more ids are told of every result.
_NAMED = 16
monotonic = time.monotonic


class PostgresReader:
    """Reads and waits for results from any thread; see the ``Reader`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)
        self._timeout = options.connect_timeout
        self._chord_token = options.chord_token

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        if not ids:
            return ()
        names = [clean(task_id) for task_id in ids]
        found = {task_id: body for task_id, _, body in self._pool.call("get", (names,), timeout)}
        return [found.get(name) for name in names]

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """Block until a record of one of the ids is written. A terminal one written before ends it at once."""
        deadline = None if timeout is None else monotonic() + timeout
        names = {clean(task_id): task_id for task_id in ids}
        with self._pool.desk() as desk:
            waiting = _Waiting(desk, list(names), self._timeout)
            try:
                for pause in waiting.pauses():
                    try:
                        name = waiting.look()
                        left = pause if deadline is None else min(pause, deadline - monotonic())
                        if name is None and left > 0:
                            name = waiting.told(left)
                    except OperationalError:
                        # A server that comes back is asked again.
                        if deadline is not None and monotonic() >= deadline:
                            raise
                        time.sleep(0.05)
                        continue
                    if name is not None:
                        return names[name]
                    if deadline is not None and monotonic() >= deadline:
                        return None
            finally:
                waiting.end()
        return None

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """Write records and wake their waiters."""
        if results:
            self._pool.call("put", result_columns(results), timeout)

    def forget(self, ids: Sequence[str], *, timeout: float) -> None:
        """Drop records."""
        if ids:
            self._pool.call("forget", ([clean(task_id) for task_id in ids],), timeout)

    def open_chords(self, chords: Sequence[NewChord], *, timeout: float) -> None:
        """Write chords before their members are sent."""
        if chords:
            args = (self._chord_token, json_text([as_new(chord) for chord in chords]))
            self._pool.call("open_chords", args, timeout)

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """Let a chord wait for more members."""
        self._pool.call("grow_chord", (clean(chord), by, self._chord_token), timeout)

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


class _Waiting:
    """One waiter: what it waits for, and whether the server knows."""

    def __init__(self, desk: Desk, names: list[str], timeout: float) -> None:
        self._desk, self._names, self._timeout = desk, names, timeout
        self._wanted = frozenset(names)
        self._channel = f"celeriac_w_{new_id()}"
        self._is_known = False

    def pauses(self) -> Iterator[float]:
        """How long to wait between two looks."""
        if self._desk.address.listen:
            while True:
                yield _LOOK_AGAIN
        pause = _POLL_FIRST
        while True:
            yield pause
            pause = min(pause * 1.5, _POLL_LAST)

    def look(self) -> str | None:
        """An id with a terminal record. Says first that somebody waits: so no record is missed."""
        if self._desk.address.listen:
            some = self._names if len(self._names) <= _NAMED else [""]
            self._desk.call("await", (some, self._channel), self._timeout)
            self._is_known = True
        ((name,),) = self._desk.call("ended", (self._names,), self._timeout)
        return name if name is None else str(name)

    def told(self, seconds: float) -> str | None:
        """An id with a new record, when one comes within ``seconds``."""
        if not self._desk.address.listen:
            time.sleep(seconds)
            return None
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            for payload in self._desk.notified(left):
                found = self._wanted.intersection(payload.split("\n"))
                if found:
                    return next(iter(found))
                if not payload:
                    return None
        return None

    def end(self) -> None:
        """Nobody waits any more."""
        if self._is_known and self._desk.is_open:
            try:
                self._desk.call("await_no_more", (self._channel,), self._timeout)
                self._desk.forget(self._timeout)
            except OperationalError:
                self._desk.close()
