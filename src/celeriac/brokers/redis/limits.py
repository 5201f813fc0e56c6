"""Limits across workers on Redis: what ``lua/limits.lua`` is told, and what it answers.

Parks are found by their fields in one hash, ``["<queue>","<key>"]`` → how many seats there are: so whoever maintains
can wake those who wait there without knowing their tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.parks import park_field, park_of
from celeriac.brokers.redis.scripts import LIMITS
from celeriac.brokers.redis.sockets import Word
from celeriac.model.limits import GO, LOST, PARKED, SLACK, Ask, Permission, Permit, Rate, Seats
from celeriac.model.message import Malformed
from celeriac.model.rules import PAUSE

__all__ = ["Limits"]

#: Most deliveries, and most parks, that one script judges.
_BATCH = 256
_PARKS = 64


class _Call:
    """One run of the script: keys are numbered as they come up."""

    def __init__(self, layout: Layout, promise: float) -> None:
        self._layout = layout
        self._promise = promise
        self._rates: dict[Rate, int] = {}
        self._seats: dict[str, int] = {}
        self._most: list[int] = []
        self._parks: dict[tuple[str, str], int] = {}
        self._asks: list[Word] = []

    def ask(self, ask: Ask) -> None:
        """Add a delivery."""
        layout, delivery = self._layout, ask.delivery
        message = delivery.message
        rank = 0 if isinstance(message, Malformed) else layout.rank(message.priority)
        self._asks += (
            delivery.token,
            message.id,
            0 if ask.rate is None else self._rates.setdefault(ask.rate, len(self._rates) + 1),
            "1" if delivery.marks.reserved else "",
            0 if ask.seats is None else self.park(delivery.queue, ask.seats),
            rank,
            len(layout.tail(delivery.queue)),
        )

    def forgo(self, ask: Ask) -> None:
        """Add a delivery that will not ask."""
        if ask.seats is not None:
            park = self.park(ask.delivery.queue, ask.seats)
            self._asks += ("", ask.delivery.message.id, 0, "", park, 0, 0)

    def park(self, queue: str, seats: Seats) -> int:
        """The number of a park."""
        if seats.key not in self._seats:
            self._seats[seats.key] = len(self._seats) + 1
            self._most.append(seats.most)
        return self._parks.setdefault((queue, seats.key), len(self._parks) + 1)

    def keys(self) -> list[str]:
        layout = self._layout
        keys = [layout.unacked, layout.index, layout.parks, layout.rules[1]]
        keys += [layout.rate(rate.bucket) for rate in self._rates]
        keys += map(layout.seats, self._seats)
        for queue, key in self._parks:
            keys += (layout.park(park_field(queue, key)), *layout.lists(queue))
        return keys

    def args(self) -> list[Word]:
        steps = self._layout.steps
        counts = len(self._rates), len(self._seats), len(self._parks), len(steps)
        args: list[Word] = [SLACK, self._promise, PAUSE, *counts, *steps]
        args += [f"{rate.interval:.6f}" for rate in self._rates]
        args += self._most
        for queue, key in self._parks:
            args += (self._seats[key], park_field(queue, key))
        return args + self._asks


class Limits:
    """The limiting side of one broker instance; ``queues`` are those it has met."""

    def __init__(self, link: Link, layout: Layout, queues: Collection[str], promise: float) -> None:
        self._link = link
        self._layout = layout
        self._queues = queues
        self._promise = promise
        self._turn = 0

    async def permit(self, asks: Sequence[Ask]) -> Sequence[Permit]:
        """See ``Limiter.permit``."""
        permits: list[Permit] = []
        for at in range(0, len(asks), _BATCH):
            call = _Call(self._layout, self._promise)
            for ask in asks[at : at + _BATCH]:
                call.ask(ask)
            permits += map(_permit, await self._link.script(LIMITS, call.keys(), call.args()))
        return permits

    async def freed(self, seats: Iterable[Seats], forgone: Sequence[Ask] = ()) -> None:
        """See ``Limiter.freed``."""
        for at in range(0, len(forgone), _BATCH):
            call = _Call(self._layout, self._promise)
            for ask in forgone[at : at + _BATCH]:
                call.forgo(ask)
            await self._link.script(LIMITS, call.keys(), call.args())
        seats = dict.fromkeys([*seats, *(ask.seats for ask in forgone if ask.seats is not None)])
        # Of several queues each is the first in its turn.
        queues = sorted(self._queues)
        self._turn += 1
        cut = self._turn % max(len(queues), 1)
        await self._wake([(queue, each) for each in seats for queue in queues[cut:] + queues[:cut]])

    async def tend(self) -> bool:
        """Wake all who can have a seat; says whether anybody waits."""
        cursor, waits = 0, False
        while True:
            found, page = await self._link.call("HSCAN", self._layout.parks, cursor, "COUNT", _PARKS)
            parks: list[tuple[str, Seats]] = []
            for field, most in zip(page[::2], page[1::2], strict=True):
                if (park := park_of(field)) is not None and most.isdigit():  # else not ours
                    parks.append((park[0], Seats(park[1], int(most))))
            waits = waits or bool(parks)
            await self._wake(parks)
            cursor = int(found)
            if cursor == 0:
                return waits

    async def _wake(self, parks: Sequence[tuple[str, Seats]]) -> None:
        for at in range(0, len(parks), _PARKS):
            call = _Call(self._layout, self._promise)
            for queue, seats in parks[at : at + _PARKS]:
                call.park(queue, seats)
            await self._link.script(LIMITS, call.keys(), call.args())


def _permit(answer: bytes) -> Permit:
    if not answer:
        return GO
    if answer == b"P":
        return PARKED
    return LOST if answer == b"L" else Permit(Permission.LATER, float(answer))
