"""The blocking ``DeadLetters`` of a Redis Cluster: pages of all queues merged, the newest first.

Which queue a letter is of stands in its key. Limits of number and size hold for each queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from msgspec.structs import replace

from celeriac.brokers.redis.blocking import monotonic
from celeriac.brokers.redis.cluster.address import parse_cluster
from celeriac.brokers.redis.cluster.pools import NodePools
from celeriac.brokers.redis.cluster.slots import HOME, queue_tag
from celeriac.brokers.redis.dead import RedisDeadLetters, Row
from celeriac.brokers.redis.keeping import RedisLedger
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.publishing import RedisPublisher
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.model.ledger import Change
from celeriac.ports import AdapterOptions

__all__ = ["ClusterDeadLetters"]

T = TypeVar("T")


class ClusterDeadLetters:
    """See ``celeriac.ports.DeadLetters``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        address = parse_cluster(url, options)
        self._options = options
        self._nodes = NodePools(address, options.pool_limit)
        self._home = self._nodes.slot(HOME)
        self._queues = Layout(self._home.address, options).queues
        self._ledger = RedisLedger("", options, pool=self._home)
        self._parts: dict[str, RedisDeadLetters] = {}

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """See ``DeadLetters.page``: the next rows of each queue, merged as far as all of them reach."""
        deadline = monotonic() + timeout
        rows: list[Row] = []
        floor: tuple[float, bytes] | None = None
        for queue in [wanted.queue] if wanted.queue else self._names(deadline):
            page, more = self._part(queue).rows(after, timeout=_left(deadline))
            rows += page
            if more:
                floor = page[-1].order if floor is None else max(floor, page[-1].order)
        rows.sort(key=lambda row: row.order, reverse=True)
        if floor is not None:
            rows = [row for row in rows if row.order >= floor]
        found: list[DeadRecord] = []
        for at, row in enumerate(rows, 1):
            if row.record is not None and wanted.matches(row.record):
                found.append(row.record)
            if floor is not None if at == len(rows) else len(found) == limit:
                return DeadPage(records=tuple(found), after=row.place)
        return DeadPage(records=tuple(found), after="")

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """See ``DeadLetters.get``."""
        deadline = monotonic() + timeout
        found: dict[str, DeadRecord | None] = {}
        for queue, group in _by_queue(keys, str).items():
            letters = self._part(queue).get(group, timeout=_left(deadline))
            found.update(zip(group, letters, strict=True))
        return [found[key] for key in keys]

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters.replay``. One step where letter and message have the same queue and nothing of the ledger
        is changed. Else the change comes first and the letter goes last: a crash in between leaves the letter."""
        deadline = monotonic() + timeout
        for replay in replays:
            envelope.encode(replay.message)
        stayed: list[Stayed] = []
        for queue, group in groupby(replays, _in_one_step):
            if queue is None:
                found = (self._replay_in_steps(replay, deadline) for replay in group)
                stayed += (each for each in found if each is not None)
            else:
                stayed += self._part(queue).replay(list(group), timeout=_left(deadline))
        return stayed

    def _replay_in_steps(self, replay: Replay, deadline: float) -> Stayed | None:
        part, change = self._part(_queue_of(replay.key)), replay.change
        if part.get([replay.key], timeout=_left(deadline)) == [None]:
            return Stayed(replay.key)
        if change is not None and self._ledger.change([change], timeout=_left(deadline)) == [False]:
            return Stayed(replay.key, False, self._ledger.read([change.key], timeout=_left(deadline))[0])
        try:
            if replay.message.queue == _queue_of(replay.key):
                gone = part.replay([replace(replay, change=None)], timeout=_left(deadline))
                if gone:
                    self._undo(change, deadline)
                return gone[0] if gone else None
            publisher = RedisPublisher("", self._options, pool=self._nodes.slot(queue_tag(replay.message.queue)))
            publisher.publish([replay.message], timeout=_left(deadline))
        except OperationalError as error:
            if not error.uncertain:
                self._undo(change, deadline)
            raise
        part.drop([replay.key], timeout=_left(deadline))
        return None

    def _undo(self, change: Change | None, deadline: float) -> None:
        if change is not None and change.value is not None:
            before = change.expected if isinstance(change.expected, bytes) else None
            back = Change(change.key, before, change.value, change.expires)
            self._ledger.change([back], timeout=_left(deadline))

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        deadline = monotonic() + timeout
        groups = _by_queue(keys, str)
        return sum(self._part(queue).drop(group, timeout=_left(deadline)) for queue, group in groups.items())

    def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        self._nodes.close()

    def _names(self, deadline: float) -> list[str]:
        names = self._home.call(("SMEMBERS", self._queues), _left(deadline), repeat=True)
        return sorted(name.decode("utf-8", "surrogateescape") for name in names)

    def _part(self, queue: str) -> RedisDeadLetters:
        part = self._parts.get(queue)
        if part is None:
            part = RedisDeadLetters("", self._options, pool=self._nodes.slot(queue_tag(queue)))
            self._parts[queue] = part
        return part


def _queue_of(key: str) -> str:
    """A key is a uuid of 36 characters, a colon and the queue."""
    return key[37:]


def _in_one_step(replay: Replay) -> str | None:
    """The queue of a letter that can be sent again in one step."""
    queue = _queue_of(replay.key)
    return queue if replay.change is None and replay.message.queue == queue else None


def _by_queue(items: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(_queue_of(key(item)), []).append(item)
    return groups


def _left(deadline: float) -> float:
    return max(deadline - monotonic(), 0.001)
