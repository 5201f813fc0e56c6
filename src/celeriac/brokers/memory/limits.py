"""Limits across workers in memory: paces, seats, and who is parked for one. Called under the server's lock.

A seat is held by a token as long as that is leased, so nobody has to give it back; or it is promised to a task that was
woken for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from celeriac.brokers.memory.queues import Lease, Parked, Queues
from celeriac.model.limits import GO, LOST, PARKED, Ask, Pace, Permission, Permit, Seats

__all__ = ["Limits"]


class _Row(Struct):
    """The seats of one key."""

    most: int
    #: Tokens; one that is no longer leased holds nothing.
    holders: set[str]
    #: Task id → the end of its promise, seconds since the epoch.
    promised: dict[str, float]


class Limits:
    """All limits of one server."""

    __slots__ = ("_paces", "_paused", "_queues", "_rows")

    def __init__(self, queues: Queues, paused: Callable[[str, float], bool] = lambda queue, now: False) -> None:
        """``paused(queue, now)``: those that wait there are not woken."""
        self._queues = queues
        self._paused = paused
        self._paces: dict[str, Pace] = {}
        self._rows: dict[str, _Row] = {}

    def permit(self, asks: Sequence[Ask], now: float, promise: float) -> list[Permit]:
        """See ``Limiter.permit``; ``promise`` in seconds."""
        permits = [self._judge(ask, now, promise) for ask in asks]
        # A promise may have been given up.
        self.freed({ask.seats for ask in asks if ask.seats is not None}, now, promise)
        return permits

    def _judge(self, ask: Ask, now: float, promise: float) -> Permit:
        delivery, row = ask.delivery, None
        token, task_id = delivery.token, delivery.message.id
        if token not in self._queues.leases:
            return LOST
        if ask.seats is not None:
            row = self._row(ask.seats)
            if token in row.holders:
                return GO  # once more: it may run already
            if not row.promised.get(task_id, 0) > now:
                self._wake(ask.seats.key, row, now, promise)
                if self._used(row, now) >= row.most:
                    self._park(ask.seats, token, task_id, first=row.promised.pop(task_id, None) is not None)
                    return PARKED
        if ask.rate is not None:
            pace = self._paces.get(ask.rate.bucket, Pace())
            pace, due = pace.take(ask.rate.interval, now, reserved=delivery.marks.reserved)
            self._paces[ask.rate.bucket] = pace
            if due is not None:
                if row is not None:
                    row.promised.pop(task_id, None)
                return Permit(Permission.LATER, due)
        if row is not None:
            row.promised.pop(task_id, None)
            row.holders.add(token)
        return GO

    def freed(self, seats: Iterable[Seats], now: float, promise: float, forgone: Iterable[Ask] = ()) -> None:
        """See ``Limiter.freed``."""
        freed = dict.fromkeys(seats)
        for ask in forgone:
            if ask.seats is not None:
                promised = self._row(ask.seats).promised
                if promised.get(ask.delivery.message.id, 0) > now:
                    promised[ask.delivery.message.id] = now
                freed[ask.seats] = None
        for each in freed:
            self._wake(each.key, self._row(each), now, promise)
            self._sweep(each.key, now)

    def tend(self, now: float, promise: float) -> None:
        """Wake whoever can have a seat, and forget what says nothing any more."""
        for key in tuple(self._rows):
            self._wake(key, self._rows[key], now, promise)
            self._sweep(key, now)
        self._paces = {bucket: pace for bucket, pace in self._paces.items() if max(pace.start, pace.line) > now}

    def _row(self, seats: Seats) -> _Row:
        row = self._rows.get(seats.key)
        if row is None:
            row = self._rows[seats.key] = _Row(seats.most, set(), {})
        row.most = seats.most
        return row

    def _used(self, row: _Row, now: float) -> int:
        row.holders &= self._queues.leases.keys()
        return len(row.holders) + sum(until > now for until in row.promised.values())

    def _park(self, seats: Seats, token: str, task_id: str, *, first: bool) -> None:
        lease = self._queues.leases.pop(token)
        line = self._queues.parked.setdefault(seats.key, deque())
        parked = Parked(lease.queue, task_id, lease.item)
        (line.appendleft if first else line.append)(parked)

    def _wake(self, key: str, row: _Row, now: float, promise: float) -> None:
        line = self._queues.parked.get(key)
        woken: list[Parked] = []
        passed: list[Parked] = []
        while line and self._used(row, now) < row.most:
            parked = line.popleft()
            if self._paused(parked.queue, now):
                passed.append(parked)
                continue
            parked.item.since = now
            row.promised[parked.id] = now + promise
            woken.append(parked)
        if line is not None:
            line.extendleft(reversed(passed))
        if line is not None and not line:
            del self._queues.parked[key]
        if woken:
            self._queues.to_front([Lease("", each.queue, each.item, 0.0) for each in woken])

    def _sweep(self, key: str, now: float) -> None:
        row = self._rows[key]
        if not self._used(row, now) and key not in self._queues.parked:
            del self._rows[key]
