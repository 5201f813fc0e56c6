"""The blocking ``Publisher`` of PostgreSQL, with ``RulesDesk``: what ``delay()`` ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.blocking import Pool
from celeriac.brokers.postgres.broker_port import limits_of_rules, rules_read
from celeriac.brokers.postgres.rows import change_columns, clean, message_columns
from celeriac.brokers.postgres.upkeep import PURGE_CHUNK, depths, lock_columns, locks_of
from celeriac.codec.envelope import LOCK_MARK
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.ports import AdapterOptions, Depth

__all__ = ["PostgresPublisher"]


class PostgresPublisher:
    """Publishes from any thread; see the ``Publisher`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """All or none; durable when it returns."""
        columns = message_columns(messages)
        if columns[0]:
            self._pool.call("publish", (*columns, list(set(columns[0]))), timeout)

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """See ``Publisher.stage``."""
        columns = message_columns(messages)
        if columns[0]:
            self._pool.call("stage", (clean(stage), *columns), timeout)

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """See ``Publisher.launch``."""
        ((done,),) = self._pool.call("launch", (clean(stage), count), timeout)
        if not done:
            raise OperationalError("what was put aside for one send is gone from PostgreSQL: send it again")

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """One transaction: the message and all changes, or nothing and what stands under the keys."""
        ordered = sorted(range(len(changes)), key=lambda index: changes[index].key)
        args = (*message_columns([message]), *change_columns([changes[index] for index in ordered]))
        ((there,),) = self._pool.call("publish_if", args, timeout)
        if there is None:
            return None
        found = dict(zip(ordered, there, strict=True))
        return [found[index] for index in range(len(changes))]

    def publish_each_if(
        self, sendings: Sequence[tuple[Message, Sequence[Change]]], *, timeout: float
    ) -> Sequence[Sequence[bytes | None] | OperationalError | None]:
        """One transaction for those with one change, which most are; one each for the others."""
        columns = message_columns(message for message, _ in sendings)
        answers: list[Sequence[bytes | None] | OperationalError | None] = [None] * len(sendings)
        several = [place for place, (_, changes) in enumerate(sendings) if len(changes) != 1]
        single = [place for place, (_, changes) in enumerate(sendings) if len(changes) == 1]
        single.sort(key=lambda place: sendings[place][1][0].key)
        changes = [sendings[place][1][0] for place in single]

        def work(call: Any) -> list[list[bytes | None] | None]:
            ((made,),) = call("change_ledger", change_columns(changes))
            new = sorted(place for place, is_new in zip(single, made, strict=True) if is_new)
            if new:
                rows = [[column[place] for place in new] for column in columns]
                call("publish_in", (*rows, sorted(set(rows[0]))))
            stayed = [each.key for each, is_new in zip(changes, made, strict=True) if not is_new]
            ((there,),) = call("read_ledger", ([clean(key) for key in stayed],)) if stayed else (([],),)
            found = iter(there)
            return [None if is_new else [next(found)] for is_new in made]

        if single:
            with self._pool.desk() as desk:
                for place, there in zip(single, desk.transaction(work, timeout), strict=True):
                    answers[place] = there
        for place in several:
            message, own = sendings[place]
            try:
                answers[place] = self.publish_if(message, own, timeout=timeout)
            except OperationalError as error:
                if error.uncertain:
                    raise
                answers[place] = error
        return answers

    def publish_once(self, messages: Mapping[str, Message], *, expires: float, timeout: float) -> Sequence[str]:
        """One transaction."""
        keys, columns = list(messages), message_columns(messages.values())
        ordered = sorted(keys)
        changes = change_columns([Change(key, b"1", None, expires) for key in ordered])

        def work(call: Any) -> list[str]:
            ((made,),) = call("change_ledger", changes)
            new = {key for key, is_new in zip(ordered, made, strict=True) if is_new}
            places = [place for place, key in enumerate(keys) if key in new]
            if places:
                rows = [[column[place] for place in places] for column in columns]
                call("publish_in", (*rows, sorted(set(rows[0]))))
            return [keys[place] for place in places]

        with self._pool.desk() as desk:
            return desk.transaction(work, timeout)

    def purge(self, queue: str, *, timeout: float) -> int:
        """Drop all ready and scheduled messages of a queue; returns how many."""

        def chunk(call: Any) -> int:
            ((count, marked),) = call("purge", (clean(queue), PURGE_CHUNK, LOCK_MARK))
            locks = locks_of(queue, marked)
            if locks:
                call("free", lock_columns(locks))
            return int(count)

        total = 0
        with self._pool.desk() as desk:
            while count := desk.transaction(chunk, timeout):
                total += count
        return total

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """How full each queue is."""
        return depths(queues, self._pool.call("depth", ([clean(queue) for queue in queues],), timeout))

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """All rules in force whose keys begin so."""
        return rules_read(self._pool.call("read_rules", (0, clean(prefix)), timeout))

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """Write or drop rules; returns the last epoch."""
        ((epoch,),) = self._pool.call("set_rules", limits_of_rules(changes), timeout)
        return int(epoch)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._pool.close()
