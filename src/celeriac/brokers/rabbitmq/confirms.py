"""Which of the messages sent over one channel the server has taken: publisher confirms. Pure.

Messages are counted by the channel in the order in which they leave. Those of one sender that leave together are a
``Parcel``; many may be under way.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.frames import Event

__all__ = ["Confirms", "Parcel"]


class Parcel:
    """Some messages in a row. ``left`` of them are unanswered, ``refused`` were not taken: a queue is full, or the
    server failed inside. ``sender`` is whatever its sender likes."""

    __slots__ = ("_above", "_first", "_last", "left", "refused", "sender")

    def __init__(self, first: int, count: int, sender: object = None) -> None:
        self._first = first
        self._last = first + count - 1
        #: Those behind the first unanswered one that are answered.
        self._above: set[int] = set()
        self.left = count
        self.refused = 0
        self.sender = sender

    def begins_by(self, tag: int) -> bool:
        """It has messages up to this one."""
        return self._first <= tag

    def answered(self, tag: int, multiple: bool) -> int:
        """This one, or all up to it; returns how many were unanswered."""
        before = self.left
        if multiple:
            self._above = {each for each in self._above if each > tag}
            self._first = min(tag, self._last) + 1
        elif self._first <= tag <= self._last:
            self._above.add(tag)
        self.left = self._last + 1 - self._first - len(self._above)
        return before - self.left


class Confirms:
    """``expect`` what is sent, ``hear`` what comes in."""

    def __init__(self) -> None:
        self._next = 1
        #: What is under way, in its order.
        self._parcels: list[Parcel] = []

    def expect(self, count: int, sender: object = None) -> Parcel:
        """So many messages are sent now."""
        parcel = Parcel(self._next, count, sender)
        self._next += count
        if count:
            self._parcels.append(parcel)
        return parcel

    @property
    def parcels(self) -> Sequence[Parcel]:
        """What is under way."""
        return self._parcels

    def hear(self, event: Event) -> Sequence[Parcel]:
        """basic.ack or basic.nack; the parcels that are answered as a whole now."""
        tag, multiple = m.arguments(event.number, event.payload)[:2]
        done = []
        for parcel in self._parcels:
            if not parcel.begins_by(tag):
                break
            count = parcel.answered(tag, multiple)
            if event.number == m.BASIC_NACK:
                parcel.refused += count
            if not parcel.left:
                done.append(parcel)
        if done:
            self._parcels = [parcel for parcel in self._parcels if parcel.left]
        return done
