"""A broker made of dicts: what the random histories of ``histories`` are compared with.

It leaves open what the ports leave open: the order among messages restored at once, and between due and ready ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct, structs

from celeriac.model.message import Delivery, Marks
from celeriac.model.settle import Accept, DeadLetter, Release, Settlement

__all__ = ["Entry", "Model"]


class Entry(Struct, eq=False):
    """One message as the model sees it."""

    id: str
    queue: str
    step: int
    due: float | None = None
    marks: Marks = Marks()


class Held(Struct, eq=False):
    """One lease as the model sees it."""

    entry: Entry
    owner: str
    until: float


class Model:
    """Queues, leases and schedule; ``now`` is passed in."""

    def __init__(self) -> None:
        #: Groups of ready messages, the next one first; within a group the order is open.
        self.ready: dict[tuple[str, int], list[list[Entry]]] = {}
        self.scheduled: list[Entry] = []
        self.leases: dict[str, Held] = {}
        self.dead: Counter[str] = Counter()

    def publish(self, entry: Entry, now: float) -> None:
        """A new message."""
        if entry.due is not None and entry.due > now:
            self.scheduled.append(entry)
        else:
            self._lane(entry).append([entry])

    def _lane(self, entry: Entry) -> list[list[Entry]]:
        return self.ready.setdefault((entry.queue, entry.step), [])

    def _next(self, queues: Sequence[str], now: float) -> list[Entry]:
        """The messages of which any may come next."""
        for step in range(4):
            for queue in queues:
                lane = self.ready.get((queue, step), [])
                due = [each for each in self.scheduled if (each.queue, each.step) == (queue, step)]
                earliest = min((each.due or 0.0 for each in due), default=now + 1)
                heads = [each for each in due if each.due == earliest] if earliest <= now else []
                if lane or heads:
                    return [*(lane[0] if lane else []), *heads]
        return []

    def claim(
        self, taken: Sequence[Delivery], queues: Sequence[str], limit: int, *, owner: str, now: float, lease: float
    ) -> None:
        """Check what a claim returned, and note its leases."""
        for delivery in taken:
            choice = {each.id: each for each in self._next(queues, now)}
            got = delivery.message.id
            assert got in choice, f"claim: {got} is not next, one of {sorted(choice)} is"
            entry = choice[got]
            assert (delivery.queue, delivery.marks) == (entry.queue, entry.marks), f"claim: queue and marks of {got}"
            self._remove(entry)
            assert delivery.token not in self.leases, "claim: a token is used once"
            self.leases[delivery.token] = Held(entry, owner, now + lease)
        following = self._next(queues, now)
        left = {each.id for each in following}
        suspects = [*(each.marks.suspect for each in taken), *(each.marks.suspect for each in following)]
        if taken and any(suspects):
            return  # a suspect may be lent alone
        assert len(taken) == limit or not left, f"claim: up to {limit}, but {sorted(left)} is left"

    def _remove(self, entry: Entry) -> None:
        if entry in self.scheduled:
            self.scheduled.remove(entry)
            return
        lane = self._lane(entry)
        lane[0].remove(entry)
        if not lane[0]:
            del lane[0]

    def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settlement]:
        """End leases; returns what has to be refused."""
        refused: list[Settlement] = []
        front: list[Entry] = []
        for settlement in settlements:
            held = self.leases.pop(settlement.delivery.token, None)
            if held is None:
                refused.append(settlement)
                continue
            entry = held.entry
            match settlement:
                case Accept():
                    pass
                case DeadLetter():
                    self.dead[entry.queue] += 1
                case Release(due=due, marks=marks, back=back):
                    entry.due = due
                    entry.marks = entry.marks if marks is None else marks
                    if due is not None and due > now:
                        self.scheduled.append(entry)
                    elif back:
                        self._lane(entry).append([entry])
                    else:
                        front.append(entry)
        for entry in reversed(front):
            self._lane(entry).insert(0, [entry])
        return refused

    def extend(self, token: str, now: float, lease: float) -> bool:
        """Whether the token is held; then its lease is renewed."""
        held = self.leases.get(token)
        if held is not None:
            held.until = now + lease
        return held is not None

    def maintain(self, now: float) -> None:
        """Expired leases → ready, with their marks advanced."""
        expired = {token: held for token, held in self.leases.items() if held.until <= now}
        counts = Counter(held.owner for held in self.leases.values())
        groups: dict[tuple[str, int], list[Entry]] = {}
        for token, held in expired.items():
            del self.leases[token]
            marks = held.entry.marks
            culprit = marks.suspect and counts[held.owner] == 1
            held.entry.marks = structs.replace(
                marks, suspect=True, expired_leases=marks.expired_leases + 1, crashes=marks.crashes + culprit
            )
            groups.setdefault((held.entry.queue, held.entry.step), []).append(held.entry)
        for key, entries in groups.items():
            self.ready.setdefault(key, []).insert(0, entries)

    def purge(self, queue: str) -> int:
        """Drop ready and scheduled ones; returns how many."""
        mine = [each for each in self.scheduled if each.queue == queue]
        ready = [each for (name, _), lane in self.ready.items() if name == queue for group in lane for each in group]
        self.scheduled = [each for each in self.scheduled if each.queue != queue]
        self.ready = {key: lane for key, lane in self.ready.items() if key[0] != queue}
        return len(mine) + len(ready)

    def counts(self, queue: str) -> tuple[int, int, int]:
        """Ready and scheduled together, leased, dead."""
        waiting = sum(each.queue == queue for each in self.scheduled)
        waiting += sum(len(group) for (name, _), lane in self.ready.items() if name == queue for group in lane)
        return waiting, sum(held.entry.queue == queue for held in self.leases.values()), self.dead[queue]
