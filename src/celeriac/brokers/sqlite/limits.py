"""Limits across workers in the file: paces, seats, and who is parked for one. Plain functions of a connection in a
transaction, called by broker_port.py and upkeep.py; their statements are in limits.sql.

A seat belongs to a lease and ends with it, so nobody has to give it back; or it is kept for a message that was woken.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from celeriac.brokers.sqlite.queues import SQL as MESSAGES
from celeriac.brokers.sqlite.queues import held, numbers, push_front, unpack
from celeriac.brokers.sqlite.statements import statements
from celeriac.model.limits import GO, LOST, PARKED, Ask, Pace, Permission, Permit, Rate, Seats
from celeriac.model.rules import PAUSE

__all__ = ["drop_parked", "forget", "freed", "keys_waiting", "permit", "waits"]

_SQL = statements("limits.sql")
#: Seconds for which a promise that has ended is remembered: who comes back with one waits in front.
_MEMORY = 60.0


class _Row:
    """The seats of one key, as they are in this transaction."""

    def __init__(self, sqlite: sqlite3.Connection, seats: Seats, now: float, promise: float) -> None:
        self._sqlite = sqlite
        self._now = now
        self._promise = promise
        self.key, self.most = seats.key, seats.most
        #: Message → its claim.
        self.holders: dict[int, int] = {}
        #: Message → whether its seat is still kept for it.
        self.promised: dict[int, bool] = {}
        #: Nobody is known to wait.
        self._empty = False
        for key, claim, until in sqlite.execute(_SQL["seats"], (seats.key,)):
            if claim is None:
                self.promised[key] = until > now
            else:
                self.holders[key] = claim

    @property
    def free(self) -> int:
        return self.most - len(self.holders) - sum(self.promised.values())

    def wake(self) -> list[str]:
        """As many as there are free seats become ready, in front; returns their queues."""
        if self._empty or self.free <= 0:
            return []
        rows = self._sqlite.execute(_SQL["first_parked"], (self.key, PAUSE, self._now, self.free)).fetchall()
        self._empty = len(rows) < self.free
        if not rows:
            return []
        self._sqlite.executemany(_SQL["unpark"], [(self.key, *row[:2]) for row in rows])
        lanes: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for _, key, queue, level, alone in rows:
            self._sqlite.execute(_SQL["take_seat"], (self.key, key, None, self._now + self._promise))
            self.promised[key] = True
            lanes.setdefault((queue, level), []).append((key, alone))
        for (queue, level), entries in lanes.items():
            push_front(self._sqlite, queue, level, entries)
        return [queue for queue, _ in lanes]

    def park(self, claim: int, key: int, *, alone: bool) -> None:
        """It waits, and its lease ends."""
        self._empty = False
        first, last = self._sqlite.execute(_SQL["ends"], (self.key,)).fetchone()
        in_front = self.promised.pop(key, None) is not None
        position = min(first or 0, 0) - 1 if in_front else max(last or 0, 0) + 1
        self._sqlite.execute(_SQL["leave_seat"], (self.key, key))
        self._sqlite.execute(_SQL["park"], (self.key, position, key, int(alone), self.most, key))
        self._sqlite.execute(MESSAGES["end_leases"], (claim, numbers((key,))))

    def seat(self, claim: int, key: int) -> None:
        """It has a seat until its lease ends."""
        self.promised.pop(key, None)
        self.holders[key] = claim
        self._sqlite.execute(_SQL["take_seat"], (self.key, key, claim, 0.0))

    def leave(self, key: int) -> None:
        """It has none, and none is kept for it."""
        known = self.promised.pop(key, None), self.holders.pop(key, None)
        if known != (None, None):
            self._sqlite.execute(_SQL["leave_seat"], (self.key, key))


def permit(
    sqlite: sqlite3.Connection, asks: Sequence[Ask], now: float, promise: float
) -> tuple[list[Permit], set[str]]:
    """See ``Limiter.permit``, ``promise`` in seconds; also the queues in which somebody was woken."""
    tokens = [unpack(ask.delivery.token) for ask in asks]
    leases = held(sqlite, tokens)
    rows: dict[str, _Row] = {}
    paces: dict[str, Pace] = {}
    permits: list[Permit] = []
    woken: list[str] = []
    for (claim, key), ask in zip(tokens, asks, strict=True):
        if key not in leases[claim]:
            permits.append(LOST)
            continue
        row = None
        if ask.seats is not None:
            row = rows.get(ask.seats.key)
            if row is None:
                row = rows[ask.seats.key] = _Row(sqlite, ask.seats, now, promise)
            if row.holders.get(key) == claim:
                permits.append(GO)  # once more: it may run already
                continue
            if not row.promised.get(key):
                woken += row.wake()
                if row.free <= 0:
                    row.park(claim, key, alone=ask.delivery.marks.suspect)
                    leases[claim].discard(key)
                    permits.append(PARKED)
                    continue
        due = _take(sqlite, paces, ask.rate, now, reserved=ask.delivery.marks.reserved)
        if row is not None and due is None:
            row.seat(claim, key)
        elif row is not None:
            row.leave(key)
        permits.append(GO if due is None else Permit(Permission.LATER, due))
    # Promises may have been given up.
    woken += [queue for row in rows.values() for queue in row.wake()]
    sqlite.executemany(_SQL["set_pace"], [(bucket, pace.start, pace.line) for bucket, pace in paces.items()])
    return permits, set(woken)


def _take(
    sqlite: sqlite3.Connection, paces: dict[str, Pace], rate: Rate | None, now: float, *, reserved: bool
) -> float | None:
    """None when it may start now, else when."""
    if rate is None:
        return None
    pace = paces.get(rate.bucket)
    if pace is None:
        found = sqlite.execute(_SQL["pace"], (rate.bucket,)).fetchone()
        pace = Pace(*found) if found else Pace()
    paces[rate.bucket], due = pace.take(rate.interval, now, reserved=reserved)
    return due


def freed(
    sqlite: sqlite3.Connection, seats: Iterable[Seats], now: float, promise: float, forgone: Iterable[Ask] = ()
) -> set[str]:
    """Wake those for whom there is a seat, also where ``forgone`` do not want theirs; returns their queues."""
    for ask in forgone:
        if ask.seats is not None:
            sqlite.execute(_SQL["forgo_seat"], (ask.seats.key, unpack(ask.delivery.token)[1], now))
    return {queue for each in seats for queue in _Row(sqlite, each, now, promise).wake()}


def waits(sqlite: sqlite3.Connection, seats: Iterable[Seats]) -> list[Seats]:
    """Those that somebody waits for."""
    return [each for each in seats if sqlite.execute(_SQL["waits"], (each.key,)).fetchone()[0]]


def keys_waiting(sqlite: sqlite3.Connection) -> list[Seats]:
    """All seats that somebody waits for."""
    return [Seats(key, most) for key, most in sqlite.execute(_SQL["parks"]).fetchall()]


def forget(sqlite: sqlite3.Connection, now: float) -> None:
    """Drop what says nothing any more."""
    sqlite.execute(_SQL["drop_paces"], (now,))
    sqlite.execute(_SQL["drop_seats"], (now - _MEMORY,))


def drop_parked(sqlite: sqlite3.Connection, queue: str, limit: int) -> list[int]:
    """Take up to ``limit`` messages of a queue out of all parks; returns their ids."""
    ids = [row[0] for row in sqlite.execute(_SQL["parked_in"], (queue, limit)).fetchall()]
    if ids:
        sqlite.execute(_SQL["drop_parked"], (queue, numbers(ids)))
    return ids
