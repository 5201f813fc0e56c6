"""Limits across workers by compare-and-set on values of a ledger: for brokers that cannot limit by themselves.

One value a bucket (``Pace``), one a key of seats: who sits there, and until when. Nothing is parked: what gets no seat
is to come again in about a second, so it waits in the broker. A seat is held by a lease of its own, which is renewed
with the delivery's, and given up when that is settled. It belongs to the task's id: a message that comes back takes the
seat over that its dead worker had.

A batch of asks costs one reading and one change, again when somebody else changed the same values in between.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.limits import GO, Ask, Pace, Permission, Permit
from celeriac.model.message import Delivery, Malformed
from celeriac.ports import Ledger

__all__ = ["Limits"]

logger = logging.getLogger("celeriac.beside")

#: Times that a change is tried before those who ask are put off, and the longest pause in seconds before the second.
_TRIES = 8
_PAUSE = 0.002
#: What got no seat comes again after about so many seconds; what could not be judged after so many.
_AGAIN = 1.0
_SOON = 0.1
#: Share of a lease that may be over before a seat is renewed again.
_FRESH = 0.2
#: Seconds for which it is remembered which seat a delivery has, for those who know only its token.
_HELD_LIFE = 86_400.0
#: Seconds for which a pace is kept beyond its line.
_PACE_LIFE = 60.0


class _Sitter(Struct):
    """Who has a seat: the task's id, the token of its delivery, and until when (seconds since the epoch)."""

    id: str
    token: str
    until: float


class _Held(Struct):
    """A seat that a delivery of ours has."""

    key: str
    id: str
    until: float


class _Book:
    """Values as they were read, and as they are to be."""

    def __init__(self, keys: Sequence[str], values: Sequence[bytes | None]) -> None:
        self._read = dict(zip(keys, values, strict=True))
        self._paces: dict[str, Pace] = {}
        self._rows: dict[str, list[_Sitter]] = {}

    def pace(self, bucket: str) -> Pace:
        """The pace of a bucket."""
        if bucket not in self._paces:
            self._paces[bucket] = _pace(self._read[_pace_key(bucket)])
        return self._paces[bucket]

    def set_pace(self, bucket: str, pace: Pace) -> None:
        """What it is from now on."""
        self._paces[bucket] = pace

    def row(self, key: str, now: float) -> list[_Sitter]:
        """Those who have seats of a key, to be changed in place."""
        if key not in self._rows:
            self._rows[key] = [each for each in _row(self._read[_seats_key(key)]) if each.until > now]
        return self._rows[key]

    def changes(self, now: float) -> list[Change]:
        """What has to be written."""
        values: list[tuple[str, bytes | None, float | None]] = [
            (_pace_key(bucket), _json([pace.start, pace.line]), max(pace.start, pace.line) - now + _PACE_LIFE)
            for bucket, pace in self._paces.items()
        ]
        for key, row in self._rows.items():
            last = max((each.until for each in row), default=now)
            value = _json([[each.id, each.token, each.until] for each in row]) if row else None
            values.append((_seats_key(key), value, last - now + 1.0 if row else None))
        return [Change(key, value, self._read[key], life) for key, value, life in values if value != self._read[key]]


class _Round:
    """One batch of asks until all are judged."""

    def __init__(self, asks: Sequence[Ask], lease: float, later: Callable[[float], float]) -> None:
        self.asks = asks
        self.left = list(range(len(asks)))
        self.permits: dict[int, Permit] = {}
        self._lease = lease
        self._later = later
        #: What the pace has said to an ask, when that is written.
        self._paced: dict[int, float | None] = {}

    def keys(self) -> list[str]:
        """The values that those who are left depend on."""
        return list(dict.fromkeys(key for index in self.left for key in _keys_of(self.asks[index])))

    def judge(self, book: _Book, now: float) -> dict[int, tuple[Permit, float | None]]:
        """A permit for each that is left, and what its pace said."""
        return {index: self._judge(index, book, now) for index in self.left}

    def _judge(self, index: int, book: _Book, now: float) -> tuple[Permit, float | None]:
        ask, row, mine = self.asks[index], None, None
        delivery = ask.delivery
        if ask.seats is not None:
            row = book.row(ask.seats.key, now)
            mine = next((each for each in row if each.id == delivery.message.id), None)
            if mine is None and len(row) >= ask.seats.most:
                return Permit(Permission.LATER, self._later(now), delivery.marks.reserved), None
        due = None
        if index in self._paced:
            due = self._paced[index]
        elif ask.rate is not None:
            reserved = delivery.marks.reserved
            pace, due = book.pace(ask.rate.bucket).take(ask.rate.interval, now, reserved=reserved)
            book.set_pace(ask.rate.bucket, pace)
        if due is not None:
            if row is not None and mine is not None:
                row.remove(mine)
            return Permit(Permission.LATER, due), due
        if row is not None:
            if mine is not None:
                row.remove(mine)
            row.append(_Sitter(delivery.message.id, delivery.token, now + self._lease))
        return GO, None

    def take(self, judged: dict[int, tuple[Permit, float | None]], failed: set[str]) -> None:
        """Keep the permits of those whose values were written as judged; the others are judged again."""
        for index, (permit, due) in judged.items():
            ask = self.asks[index]
            if failed.isdisjoint(_keys_of(ask)):
                self.permits[index] = permit
            elif ask.rate is not None and _pace_key(ask.rate.bucket) not in failed:
                seated = permit.permission is Permission.GO or due is not None
                if seated:  # else its pace was not asked
                    self._paced[index] = due
        self.left = [index for index in self.left if index not in self.permits]


class Limits:
    """Of one broker instance. ``lease`` in seconds; ``now()`` is the time that all who share the ledger agree on."""

    def __init__(self, ledger: Ledger, *, lease: float, now: Callable[[], float], rand: Callable[[], float]) -> None:
        self._ledger = ledger
        self._lease = lease
        self._now = now
        self._rand = rand
        #: Token → the seat that its delivery has.
        self._held: dict[str, _Held] = {}

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """See ``Limiter.permit``; due times are in the ledger's time."""
        asking = _Round(asks, self._lease, self._later)
        #: Whose seats were noted in the last round, written or not.
        noted: set[int] = set()
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(self._rand() * _PAUSE * 2**number)
            keys = asking.keys()
            book = _Book(keys, await self._ledger.read_ledger(keys))
            now = self._now()
            judged = asking.judge(book, now)
            changes = book.changes(now)
            seated = {index for index, (permit, _) in judged.items() if permit == GO and asks[index].seats}
            notes = [_note(asks[index]) for index in sorted(seated)]
            # Somebody else was faster to take the seat.
            notes += [
                Change(_note_key(asks[index].delivery.token), None) for index in sorted(noted & judged.keys() - seated)
            ]
            noted = seated
            made = await self._ledger.change_ledger([*changes, *notes]) if changes or notes else ()
            failed = {change.key for change, done in zip(changes, made, strict=False) if not done}
            asking.take(judged, failed)
            if not asking.left:
                break
        else:
            await self._give_up([asks[index] for index in asking.left])
        now = self._now()
        for index, permit in asking.permits.items():
            ask = asks[index]
            if permit == GO and ask.seats is not None:
                held = _Held(ask.seats.key, ask.delivery.message.id, now + self._lease)
                self._held[ask.delivery.token] = held
        return [asking.permits.get(index) or self._unjudged(ask, now) for index, ask in enumerate(asks)]

    def _later(self, now: float) -> float:
        return now + _AGAIN * (0.75 + 0.5 * self._rand())

    def _unjudged(self, ask: Ask, now: float) -> Permit:
        """Too many change the same values at once."""
        return Permit(Permission.LATER, now + _SOON * (0.5 + self._rand()), ask.delivery.marks.reserved)

    async def _give_up(self, asks: Sequence[Ask]) -> None:
        """A seat may have been written while the pace was not."""
        await self.settled([ask.delivery for ask in asks], asks)

    async def renewed(self, deliveries: Sequence[Delivery]) -> None:
        """The leases of these were renewed: their seats are, too. An outage is left to the next time."""
        now = self._now()
        strangers = [each.token for each in deliveries if isinstance(each.message, Malformed)]
        held = [(each.token, self._held[each.token]) for each in deliveries if each.token in self._held]
        try:
            held += await self._found(strangers)
            due = [(token, seat) for token, seat in held if seat.until < now + self._lease * (1 - _FRESH)]
            if due:
                await self._change({seat.key for _, seat in due}, lambda rows: self._renew(rows, due))
        except OperationalError as error:
            logger.debug("Cannot renew the seats of %d tasks: %s", len(held), error)

    async def _found(self, tokens: Sequence[str]) -> list[tuple[str, _Held]]:
        """Seats of deliveries of which only the token is known: a child is busy, and somebody stands in for it."""
        if not tokens:
            return []
        notes = await self._ledger.read_ledger([_note_key(token) for token in tokens])
        found = [(token, json.loads(note)) for token, note in zip(tokens, notes, strict=True) if note]
        return [(token, _Held(key, task_id, 0.0)) for token, (key, task_id) in found]

    def _renew(self, rows: dict[str, list[_Sitter]], due: Sequence[tuple[str, _Held]]) -> None:
        until = self._now() + self._lease
        for token, seat in due:
            row = rows[seat.key]
            # Whoever lost it, because nobody could renew it, runs all the same.
            row[:] = [each for each in row if each.id != seat.id]
            row.append(_Sitter(seat.id, token, until))
            seat.until = until

    async def settled(self, deliveries: Iterable[Delivery], asks: Sequence[Ask] = ()) -> None:
        """These are over: their seats are free. ``asks`` are those of deliveries whose seats another process took. What
        an outage leaves ends with its lease."""
        gone = {each.token: seat.key for each in deliveries if (seat := self._held.pop(each.token, None)) is not None}
        gone |= {ask.delivery.token: ask.seats.key for ask in asks if ask.seats is not None}
        if not gone:
            return

        def leave(rows: dict[str, list[_Sitter]]) -> None:
            for row in rows.values():
                row[:] = [each for each in row if each.token not in gone]

        try:
            await self._change(set(gone.values()), leave, [Change(_note_key(token), None) for token in gone])
        except OperationalError as error:
            logger.debug("Cannot give up the seats of %d tasks, their leases will: %s", len(gone), error)

    async def _change(
        self, keys: Iterable[str], edit: Callable[[dict[str, list[_Sitter]]], None], notes: Sequence[Change] = ()
    ) -> None:
        """Change rows in place, until nobody else did so in between."""
        left, more = set(keys), list(notes)
        for number in range(_TRIES * 2):
            if number:
                await asyncio.sleep(self._rand() * _PAUSE * 2 ** min(number, _TRIES))
            wanted = [_seats_key(key) for key in left]
            book, now = _Book(wanted, await self._ledger.read_ledger(wanted)), self._now()
            rows = _Only({key: book.row(key, now) for key in left})
            edit(rows)
            changes = book.changes(now)
            made = await self._ledger.change_ledger([*changes, *more]) if changes or more else ()
            more = []
            failed = {change.key for change, done in zip(changes, made, strict=False) if not done}
            left = {key for key in left if _seats_key(key) in failed}
            if not left:
                return
        raise OperationalError(f"the seats of {', '.join(sorted(left))} change hands all the time")


class _Only(dict[str, list[_Sitter]]):
    """Rows of some keys; those of others are nobody's business this time."""

    def __missing__(self, key: str) -> list[_Sitter]:
        return []


def _keys_of(ask: Ask) -> list[str]:
    keys = [] if ask.rate is None else [_pace_key(ask.rate.bucket)]
    return keys if ask.seats is None else [*keys, _seats_key(ask.seats.key)]


def _pace_key(bucket: str) -> str:
    return f"pace:{bucket}"


def _seats_key(key: str) -> str:
    return f"seats:{key}"


def _note_key(token: str) -> str:
    return f"seat:{token}"


def _note(ask: Ask) -> Change:
    assert ask.seats is not None
    return Change(_note_key(ask.delivery.token), _json([ask.seats.key, ask.delivery.message.id]), expires=_HELD_LIFE)


def _pace(value: bytes | None) -> Pace:
    return Pace() if value is None else Pace(*json.loads(value))


def _row(value: bytes | None) -> list[_Sitter]:
    return [] if value is None else [_Sitter(*each) for each in json.loads(value)]


def _json(value: Any) -> bytes:
    """The standard library's: ids may hold what is no valid Unicode."""
    return json.dumps(value, separators=(",", ":")).encode()
