"""Taking messages under leases, and waiting for them without polling.

A claim that finds nothing says that it waits (a shared advisory lock for each queue, ``LISTEN``), looks once more, and
sleeps until it is told; every two seconds it looks without having been told. Behind a pooler in transaction mode there
is neither: it looks again and again, in growing pauses.

A claim whose answer got lost has taken messages that nobody knows of. Its number is known, so the next claim looks
them up and delivers them; so do those after it for a while, for the server may have come to it only then, held up by
somebody's lock. A cancelled claim leaves its answer to the next one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from celeriac.brokers.postgres.marks import Marks
from celeriac.brokers.postgres.rows import clean
from celeriac.brokers.postgres.session import Session, shielded
from celeriac.clock import ServerTime
from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery

__all__ = ["Claims", "Read"]

#: Turns stored text into a delivery: ``read(raw, token, queue)``.
Read = Callable[[bytes, str, str], Delivery]

#: Seconds after which a waiting claim looks without having been told.
LOOK_AGAIN = 2.0
#: Somebody was just looking for waiters, so that a lock could not be taken: seconds until the next try.
_BUSY = 0.003
#: Without LISTEN: the shortest and the longest pause between two looks, in seconds.
_POLL_FIRST, _POLL_LAST = 0.01, 0.5
#: Waiting for a due message ends so much later, in seconds: asking too early costs a second question.
_LATE = 0.0005
#: Seconds that the answer to a cancelled claim waits for the next claim.
_LEFT = 0.1
#: Seconds between two looks for what claims have taken whose answer got lost.
_ASK = 0.5
_LIMIT = 10_000


class Claims:
    """The claiming side of one broker instance."""

    def __init__(self, session: Session, owner: str, lease: float, read: Read) -> None:
        self._session = session
        self._owner = owner
        self._lease = lease
        self._read = read
        self.epoch = 0
        #: The server's time, and the monotonic clock's when that was told.
        self._time = ServerTime()
        #: Queues that this connection listens to, and which connection that is.
        self._listens: set[str] = set()
        self._generation = -1
        self._stash: list[Delivery] = []
        #: Called when nobody may have come for what a cancelled claim took.
        self.left: Callable[[], None] | None = None
        #: Number of a claim whose answer got lost → until when it is looked for, by the monotonic clock.
        self._doubtful: dict[int, float] = {}
        self._ask_at = 0.0
        #: Looks that wait for their answers.
        self._looks: set[asyncio.Future[tuple[list[Delivery], float | None]]] = set()
        self._queues: dict[str, str] = {}
        #: Where claims begin to look, for each list of queues.
        self._marks: dict[tuple[str, ...], Marks] = {}

    def now(self) -> float:
        """See ``Timekeeper.now``."""
        return self._time.now()

    def heard(self, now: float) -> None:
        """The server's time, as it was told."""
        self._time.heard(now)

    async def claim(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        if limit <= 0 or not queues:
            return ()
        names = self._cleaned(queues)
        limit = min(limit, _LIMIT)
        deadline = time.monotonic() + wait
        known, poll = self.epoch, _POLL_FIRST
        while True:
            if self._doubtful and time.monotonic() >= self._ask_at:
                await self._look_up_doubtful()
            if self._stash and (taken := self._from_stash(queues, limit)):
                return taken
            rings = self._session.rings
            deliveries, due = await self._take(names, limit)
            left = deadline - time.monotonic()
            if deliveries or left <= 0 or self.epoch != known or self._stash:
                return deliveries or self._from_stash(queues, limit)
            pause = min(left, LOOK_AGAIN if due is None else max(0.0, due + _LATE))
            if not self._session.address.listen:
                pause, poll = min(pause, poll), min(poll * 1.5, _POLL_LAST)
            elif not self._attends(names):
                # Looks once more, now that it would be told.
                pause = 0.0 if await shielded(self._attend(names)) else min(pause, _BUSY)
            rest = self._marks_of(names).rest(time.monotonic())
            await self._session.rung(rings, min(pause, LOOK_AGAIN if rest is None else rest, LOOK_AGAIN))
            if not self._session.is_open:
                return ()

    def _cleaned(self, queues: Sequence[str]) -> list[str]:
        for queue in queues:
            if queue not in self._queues:
                self._queues[queue] = clean(queue)
        return [self._queues[queue] for queue in queues]

    # ------------------------------------------------------------ doors

    def _attends(self, names: Sequence[str]) -> bool:
        self._check_generation()
        return self._session.doors.issuperset(names)

    def _check_generation(self) -> None:
        if self._generation != self._session.generation:
            self._generation = self._session.generation
            self._session.doors.clear()
            self._listens.clear()

    async def _attend(self, names: Sequence[str]) -> bool:
        wanted = [name for name in names if name not in self._session.doors]
        listens = self._listens.issuperset(wanted)
        generation = self._session.generation
        ((held,),) = await self._session.call("attend", (wanted, listens))
        if self._session.generation != generation:
            return False
        self._session.doors.update(held)
        self._listens.update(wanted)
        return len(held) == len(wanted)

    # ------------------------------------------------------------ taking

    async def _take(self, names: list[str], limit: int) -> tuple[list[Delivery], float | None]:
        """One look: deliveries, and the seconds until the next message is due. Its answer is never lost."""
        task = asyncio.ensure_future(self._look(names, limit))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._keep)
            raise

    async def _look(self, names: list[str], limit: int) -> tuple[list[Delivery], float | None]:
        number = self.number()
        self._check_generation()
        generation, held = self._generation, list(self._session.doors)
        marks = self._marks_of(names)
        start = marks.start(time.monotonic())
        try:
            args = (names, limit, self._owner, number, self._lease, held, start)
            rows = await self._session.call("claim", args)
        except OperationalError as error:
            if error.uncertain:
                self._doubtful[number] = time.monotonic() + self._lease
                self._ask_at = 0.0
            raise
        *found, (_, _, _, now, self.epoch, due, took, new) = rows
        marks.found(start, took, new, limit, time.monotonic())
        self.heard(now)
        if found and held and generation == self._session.generation:
            self._session.doors.difference_update(held)
            self._session.ring()  # other claims of this broker, which wait at these doors too
        back = self._names_back()
        deliveries = [
            self._read(raw, f"{self._owner}:{number}:{key}", back.get(queue, queue)) for key, queue, raw, *_ in found
        ]
        return deliveries, None if due is None else due - now

    def _marks_of(self, names: list[str]) -> Marks:
        key = tuple(names)
        if key not in self._marks:
            self._marks[key] = Marks(len(names))
        return self._marks[key]

    def number(self) -> int:
        """A number for a claim, never used before."""
        return int.from_bytes(os.urandom(7))

    def deliveries(self, rows: Iterable[Sequence[object]], number: int) -> list[Delivery]:
        """Deliveries from rows of id, queue and envelope."""
        back = self._names_back()
        return [
            self._read(raw, f"{self._owner}:{number}:{key}", back.get(queue, queue))  # type: ignore[arg-type,call-overload]
            for key, queue, raw in rows
        ]

    def _names_back(self) -> Mapping[str, str]:
        return {name: queue for queue, name in self._queues.items() if name != queue}

    # ------------------------------------------------------------ answers that nobody took

    def _keep(self, task: asyncio.Future[tuple[list[Delivery], float | None]]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        deliveries, _ = task.result()
        if deliveries:
            self._stash += deliveries
            self._session.ring()
            if self.left is not None:
                asyncio.get_running_loop().call_later(_LEFT, self.left)

    async def _look_up_doubtful(self) -> None:
        rows = await shielded(self._session.call("mine", (self._lease, self._owner, list(self._doubtful))))
        now = time.monotonic()
        self._ask_at = now + _ASK
        for claim, key, queue, raw in rows:
            self._doubtful.pop(claim, None)
            self._stash += self.deliveries([(key, queue, raw)], claim)
        self._doubtful = {number: until for number, until in self._doubtful.items() if until > now}

    def _from_stash(self, queues: Sequence[str], limit: int) -> list[Delivery]:
        taken = [delivery for delivery in self._stash if delivery.queue in queues][:limit]
        tokens = {delivery.token for delivery in taken}
        self._stash = [delivery for delivery in self._stash if delivery.token not in tokens]
        return taken

    async def answered(self) -> None:
        """Wait for the answers to cancelled claims."""
        if self._looks:
            await asyncio.wait(self._looks)

    def give_back(self) -> list[Delivery]:
        """Deliveries that nobody came for; the caller releases them."""
        stash, self._stash = self._stash, []
        return stash
