"""Blocking publishing to a Redis Cluster: a router over the publishers of queues.

One queue is one step, as on one server. Messages for several queues go to one after the other: a failure in between is
``uncertain``. A message and the ledger are on different nodes, so ``publish_if`` takes three steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from celeriac.brokers.redis.blocking import monotonic
from celeriac.brokers.redis.cluster.address import parse_cluster
from celeriac.brokers.redis.cluster.pools import NodePools, SlotPool
from celeriac.brokers.redis.cluster.slots import HOME, queue_tag
from celeriac.brokers.redis.keeping import RedisLedger
from celeriac.brokers.redis.publishing import RedisPublisher
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.ports import AdapterOptions, Depth

__all__ = ["ClusterPublisher"]

#: Seconds for which a key is taken before its message is there: how long a producer that dies in between blocks it.
CLAIMED = 30.0
#: Most ids that are remembered.
_DOUBTS = 1000


class QueuePublisher(RedisPublisher):
    """The publisher of one queue; locks are elsewhere."""

    def __init__(self, options: AdapterOptions, pool: SlotPool, home: RedisPublisher) -> None:
        super().__init__("", options, pool=pool)
        self._ledgers = home.place


class ClusterPublisher:
    """See ``celeriac.ports.Publisher``."""

    stepwise = True

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._address = parse_cluster(url, options)
        self._options = options
        self._nodes = NodePools(self._address, options.pool_limit)
        self._parts: dict[str, RedisPublisher] = {}
        #: Ids whose keys are taken, and whose message may be there or not.
        self._doubtful: dict[str, None] = {}
        home = self._nodes.slot(HOME)
        self._home = RedisPublisher("", options, pool=home)
        self._ledger = RedisLedger("", options, pool=home)

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """See ``Publisher.publish``. All or none of a queue."""
        deadline, sent = monotonic() + timeout, False
        for queue, group in _by_queue(messages).items():
            try:
                self._part(queue).publish(group, timeout=_left(deadline))
            except OperationalError as error:
                error.uncertain = error.uncertain or sent
                raise
            sent = True

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """See ``Publisher.stage``."""
        deadline = monotonic() + timeout
        groups = _by_queue(messages)
        if groups:
            self._home.name_stage(stage, list(groups), timeout=_left(deadline))
        for queue, group in groups.items():
            self._part(queue).stage(group, stage=stage, timeout=_left(deadline))

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """See ``Publisher.launch``. One step for each queue, after all of them were counted."""
        deadline, sent = monotonic() + timeout, False
        queues = self._home.named_in_stage(stage, timeout=_left(deadline))
        staged = {queue: self._part(queue).count_stage(stage, timeout=_left(deadline)) for queue in queues}
        if sum(staged.values()) != count:
            raise OperationalError(
                f"Redis at {self._address.masked}: what was put aside for one send is gone: send it again"
            )
        for queue, number in staged.items():
            try:
                self._part(queue).launch(stage, count=number, timeout=_left(deadline))
            except OperationalError as error:
                error.uncertain = error.uncertain or sent
                raise
            sent = True

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """See ``Publisher.publish_if``: takes the keys for a short time, publishes, and takes them for their time. What
        a producer that dies in between leaves is a key that is taken for ``CLAIMED`` seconds, or one whose message is
        there and that is free too early; never a message without its key from the beginning."""
        envelope.encode(message)
        deadline = monotonic() + timeout
        there = self._ledger.change_all([_shortly(change) for change in changes], timeout=_left(deadline))
        if there is not None and not (message.id in self._doubtful and _are_made(changes, there)):
            return there
        self._doubtful.pop(message.id, None)
        try:
            self._part(message.queue).publish([message], timeout=_left(deadline))
        except OperationalError as error:
            if error.uncertain:
                # The keys say that it is there. Who tries again here must send it again.
                self._doubt(message.id)
            else:
                self._undo(changes, _left(deadline))
            raise
        self._ledger.change(
            [replace(change, expected=change.value) for change in changes if change.value is not None],
            timeout=_left(deadline),
        )
        return None

    def _doubt(self, task_id: str) -> None:
        if len(self._doubtful) >= _DOUBTS:
            self._doubtful.pop(next(iter(self._doubtful)))
        self._doubtful[task_id] = None

    def _undo(self, changes: Sequence[Change], timeout: float) -> None:
        """Put back what was there; another who took a key since keeps it."""
        back = [
            Change(each.key, each.expected if isinstance(each.expected, bytes) else None, each.value, each.expires)
            for each in changes
            if each.value is not None
        ]
        try:
            self._ledger.change(back, timeout=timeout)
        except OperationalError:
            pass  # the keys are free when their short time is over

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Broker.purge``."""
        return self._part(queue).purge(queue, timeout=timeout)

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        deadline = monotonic() + timeout
        found: dict[str, Depth] = {}
        for queue in dict.fromkeys(queues):
            found.update(self._part(queue).depth([queue], timeout=_left(deadline)))
        return found

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """See ``RulesDesk.rules``."""
        return self._home.rules(prefix, timeout=timeout)

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """See ``RulesDesk.set_rules``."""
        return self._home.set_rules(changes, timeout=timeout)

    def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        self._nodes.close()

    def _part(self, queue: str) -> RedisPublisher:
        part = self._parts.get(queue)
        if part is None:
            part = QueuePublisher(self._options, self._nodes.slot(queue_tag(queue)), self._home)
            self._parts[queue] = part
        return part


def _by_queue(messages: Sequence[Message]) -> dict[str, list[Message]]:
    groups: dict[str, list[Message]] = {}
    for message in messages:
        groups.setdefault(message.queue, []).append(message)
    return groups


def _left(deadline: float) -> float:
    return max(deadline - monotonic(), 0.001)


def _shortly(change: Change) -> Change:
    if change.value is None:
        return change
    return replace(change, expires=CLAIMED if change.expires is None else min(change.expires, CLAIMED))


def _are_made(changes: Sequence[Change], there: Sequence[bytes | None]) -> bool:
    return all(change.value == value for change, value in zip(changes, there, strict=True))
