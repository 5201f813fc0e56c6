"""Queues, leases and schedule in memory: plain synchronous state, called under the server's lock.

Times are passed in: ``now`` is seconds since the epoch (due times, ages), ``tick`` is monotonic (leases).
Stored bytes are opaque here but for the marks that a restore advances.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from msgspec import Struct

from celeriac.brokers.memory.dead import Dead
from celeriac.codec.envelope import delivery, remark
from celeriac.model.leases import after_lost_lease
from celeriac.ports import Depth

__all__ = ["Item", "Lease", "Parked", "Queues", "Wakeable", "step_of"]

#: kombu's priority steps; a priority is rounded down to one, the lower is taken first.
STEPS = (0, 3, 6, 9)


def step_of(priority: int) -> int:
    """Index of the step that a priority belongs to."""
    return min(max(priority, 0) // 3, len(STEPS) - 1)


class Wakeable(Protocol):
    """Whoever waits for a queue."""

    def wake(self) -> None: ...


class Item(Struct):
    """A stored message: the envelope as text, and since when it is ready."""

    raw: bytes
    step: int
    since: float


class Lease(Struct):
    """A stored message that somebody holds until ``until`` on the monotonic clock."""

    owner: str
    queue: str
    item: Item
    until: float


class Parked(Struct):
    """A stored message that waits for a seat (limits.py), and its task's id."""

    queue: str
    id: str
    item: Item


class _Queue:
    __slots__ = ("ready", "schedule", "waiters")

    def __init__(self) -> None:
        #: One deque a step: the left end is next.
        self.ready: tuple[deque[Item], ...] = tuple(deque() for _ in STEPS)
        #: Heap of (due, order of arrival, item).
        self.schedule: list[tuple[float, int, Item]] = []
        self.waiters: set[Wakeable] = set()


class Queues:
    """All queues of one server."""

    __slots__ = ("_numbers", "_queues", "dead", "leases", "parked")

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        #: By token, the oldest claim first.
        self.leases: dict[str, Lease] = {}
        #: By the key of the seats that they wait for: the left end is next.
        self.parked: dict[str, deque[Parked]] = {}
        self.dead = Dead()
        self._numbers = itertools.count(1)

    def declare(self, name: str) -> _Queue:
        """The queue of that name, made when it is missing."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue()
        return queue

    # -- in ----------------------------------------------------------------------------------------------------------

    def add(self, name: str, raw: bytes, *, step: int, due: float | None, now: float) -> None:
        """Behind all others of its step, or on the schedule when ``due`` is to come."""
        item = Item(raw, step, now)
        if due is not None and due > now:
            self._schedule(name, item, due)
        else:
            self._back(name, item)

    def _schedule(self, name: str, item: Item, due: float) -> None:
        queue = self.declare(name)
        heappush(queue.schedule, (due, next(self._numbers), item))
        if queue.schedule[0][2] is item:
            _wake(queue)  # whoever waits must get up earlier than he thought

    def _back(self, name: str, item: Item) -> None:
        queue = self.declare(name)
        queue.ready[item.step].append(item)
        if queue.waiters:
            _wake(queue)

    def _front(self, name: str, items: Iterable[Item]) -> None:
        """Before all others of their steps; ``items`` come last first."""
        queue = self.declare(name)
        for item in items:
            queue.ready[item.step].appendleft(item)
        _wake(queue)

    # -- out ---------------------------------------------------------------------------------------------------------

    def promote(self, queue: _Queue, now: float) -> None:
        """What is due becomes ready, the earliest first."""
        schedule = queue.schedule
        while schedule and schedule[0][0] <= now:
            _, _, item = heappop(schedule)
            item.since = now
            queue.ready[item.step].append(item)

    def take(
        self, names: Sequence[str], limit: int, *, owner: str, now: float, until: float
    ) -> list[tuple[str, str, bytes]]:
        """Up to ``limit`` ready messages as (token, queue, raw), under leases of ``owner``."""
        taken: list[tuple[str, str, bytes]] = []
        queues = [(name, self._queues[name]) for name in names if name in self._queues]
        for _, queue in queues:
            if queue.schedule:
                self.promote(queue, now)
        for step in range(len(STEPS)):
            for name, queue in queues:
                ready = queue.ready[step]
                while ready and len(taken) < limit:
                    item = ready.popleft()
                    token = f"{owner}:{next(self._numbers)}"
                    self.leases[token] = Lease(owner, name, item, until)
                    taken.append((token, name, item.raw))
        return taken

    def withdraw(
        self, names: Sequence[str], wanted: Callable[[bytes], bool], *, owner: str, until: float
    ) -> list[tuple[str, str, bytes]]:
        """Take what is wanted out of the midst of these queues, their schedules and parks; as ``take``."""
        taken: list[tuple[str, str, bytes]] = []
        for name in dict.fromkeys(names):
            queue = self._queues.get(name) or _Queue()
            items = [item for ready in queue.ready for item in ready] + [item for _, _, item in queue.schedule]
            items += [each.item for line in self.parked.values() for each in line if each.queue == name]
            found = [item for item in items if wanted(item.raw)]
            if not found:
                continue
            gone = set(map(id, found))
            for ready in queue.ready:
                kept = [item for item in ready if id(item) not in gone]
                ready.clear()
                ready.extend(kept)
            queue.schedule = [entry for entry in queue.schedule if id(entry[2]) not in gone]
            heapify(queue.schedule)
            self._keep_parked(lambda each: id(each.item) not in gone)  # noqa: B023
            for item in found:
                token = f"{owner}:{next(self._numbers)}"
                self.leases[token] = Lease(owner, name, item, until)
                taken.append((token, name, item.raw))
        return taken

    def _keep_parked(self, keep: Callable[[Parked], bool]) -> None:
        for key, line in tuple(self.parked.items()):
            kept = deque(each for each in line if keep(each))
            if len(kept) < len(line):
                self.parked[key] = kept
            if not kept:
                del self.parked[key]

    def wake_all(self) -> None:
        """Wake everybody who waits."""
        for queue in self._queues.values():
            _wake(queue)

    def has_ready(self, name: str) -> bool:
        """Whether a claim would find something without looking at the schedule."""
        queue = self._queues.get(name)
        return queue is not None and any(queue.ready)

    def next_due(self, names: Sequence[str]) -> float | None:
        """The earliest due time on the schedules of these queues."""
        queues = [self._queues[name] for name in names if name in self._queues]
        return min((queue.schedule[0][0] for queue in queues if queue.schedule), default=None)

    def watch(self, names: Sequence[str], waiter: Wakeable) -> None:
        """Wake it when something becomes ready or is scheduled in one of these queues."""
        for name in names:
            self.declare(name).waiters.add(waiter)

    def unwatch(self, names: Sequence[str], waiter: Wakeable) -> None:
        """Undo ``watch``."""
        for name in names:
            self.declare(name).waiters.discard(waiter)

    # -- ends --------------------------------------------------------------------------------------------------------

    def release(self, lease: Lease, *, due: float | None, raw: bytes | None, back: bool, now: float) -> bool:
        """Put the message of a lease that was just ended back, with other bytes if given; ``False`` when it belongs to
        the front: the caller collects those and calls ``to_front``."""
        item = lease.item
        item.since = now
        if raw is not None:
            item.raw = raw
        if due is not None and due > now:
            self._schedule(lease.queue, item, due)
        elif back:
            self._back(lease.queue, item)
        else:
            return False
        return True

    def to_front(self, leases: Sequence[Lease]) -> None:
        """Put messages before all others of their queues and steps, keeping their order."""
        for name in dict.fromkeys(lease.queue for lease in leases):
            self._front(name, [lease.item for lease in reversed(leases) if lease.queue == name])

    def restore(self, *, now: float, tick: float) -> None:
        """Leases that ran out end: their messages are ready again, at the front, with their marks advanced."""
        expired = [(token, lease) for token, lease in self.leases.items() if lease.until <= tick]
        if not expired:
            return
        held = Counter(lease.owner for lease in self.leases.values())
        for token, lease in expired:
            del self.leases[token]
            lease.item.since = now
            lease.item.raw = _advanced(lease.item.raw, alone=held[lease.owner] == 1)
        self.to_front([lease for _, lease in expired])

    def due(self, now: float) -> None:
        """Everything due becomes ready, in all queues."""
        for queue in self._queues.values():
            if queue.schedule and queue.schedule[0][0] <= now:
                self.promote(queue, now)
                _wake(queue)

    def next_event(self, *, now: float, tick: float, dead_expires: float) -> float | None:
        """Seconds until something is due, a lease runs out or a dead letter is too old."""
        events = [queue.schedule[0][0] - now for queue in self._queues.values() if queue.schedule]
        events += [lease.until - tick for lease in self.leases.values()]
        oldest = self.dead.oldest()
        if oldest is not None:
            events.append(oldest + dead_expires - now)
        return min(events, default=None)

    # -- counts ------------------------------------------------------------------------------------------------------

    def depth(self, name: str, now: float) -> Depth:
        """How full a queue is."""
        queue = self._queues.get(name) or _Queue()
        heads = [item.since for ready in queue.ready for item in itertools.islice(ready, 1)]
        return Depth(
            ready=sum(len(ready) for ready in queue.ready),
            scheduled=len(queue.schedule) + sum(each.queue == name for line in self.parked.values() for each in line),
            leased=sum(lease.queue == name for lease in self.leases.values()),
            dead=self.dead.count(name),
            oldest=max(0.0, now - min(heads)) if heads else None,
        )

    def purge(self, name: str) -> list[bytes]:
        """Drop ready, scheduled and parked messages; returns their bytes."""
        queue = self._queues.get(name) or _Queue()
        dropped = [item.raw for ready in queue.ready for item in ready]
        dropped += [item.raw for _, _, item in queue.schedule]
        dropped += [each.item.raw for line in self.parked.values() for each in line if each.queue == name]
        self._keep_parked(lambda each: each.queue != name)
        for ready in queue.ready:
            ready.clear()
        queue.schedule.clear()
        return dropped

    def forget_waiters(self) -> None:
        """Nobody waits any more (after a fork)."""
        for queue in self._queues.values():
            queue.waiters.clear()


def _wake(queue: _Queue) -> None:
    # All of them, not one: the one might be cancelled before it takes anything.
    for waiter in queue.waiters:
        waiter.wake()


def _advanced(raw: bytes, *, alone: bool) -> bytes:
    """The stored text of a lost delivery: suspect from now on; a crash only when it must have been the culprit."""
    lost = delivery(raw, token="", queue="")
    return remark(lost, after_lost_lease(lost.marks, alone=alone))
