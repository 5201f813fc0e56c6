"""The blocking ``Publisher`` of SQLite: what ``delay()`` ends in."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence

from celeriac.brokers.sqlite import ledger_table, stages, upkeep
from celeriac.brokers.sqlite import queues as tables
from celeriac.brokers.sqlite import rules as rulebook
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.blocking import Pool
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.ports import AdapterOptions, Depth

__all__ = ["SQLitePublisher"]


class SQLitePublisher:
    """Publishes from any thread; see the ``Publisher`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """All or none; durable when it returns."""
        rows = tables.prepare(messages)
        if not rows:
            return
        with self._pool.desk() as desk:
            desk.write(lambda sqlite: tables.add(sqlite, rows, time.time()), timeout)
            desk.bells.ring_queues({row[0] for row in rows})

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """See ``Publisher.stage``."""
        rows = tables.prepare(messages)
        with self._pool.desk() as desk:
            desk.write(lambda sqlite: stages.stage(sqlite, stage, rows, time.time()), timeout)

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """See ``Publisher.launch``."""
        with self._pool.desk() as desk:
            queues = desk.write(lambda sqlite: stages.launch(sqlite, stage, count, time.time()), timeout)
            if queues is None:
                raise OperationalError("what was put aside for one send is gone from the SQLite file: send it again")
            desk.bells.ring_queues(set(queues))

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """One transaction: the message and all changes, or nothing and what stands under the keys."""
        rows = tables.prepare([message])

        def work(sqlite: sqlite3.Connection) -> list[bytes | None] | None:
            now = time.time()
            there = ledger_table.change_all(sqlite, changes, now)
            if there is None:
                tables.add(sqlite, rows, now)
            return there

        with self._pool.desk() as desk:
            there = desk.write(work, timeout)
            if there is None:
                desk.bells.ring_queues({message.queue})
        return there

    def publish_each_if(
        self, sendings: Sequence[tuple[Message, Sequence[Change]]], *, timeout: float
    ) -> Sequence[Sequence[bytes | None] | None]:
        """One transaction for all."""
        rows = tables.prepare([message for message, _ in sendings])

        def work(sqlite: sqlite3.Connection) -> list[list[bytes | None] | None]:
            now = time.time()
            answers = [ledger_table.change_all(sqlite, changes, now) for _, changes in sendings]
            tables.add(sqlite, [row for row, there in zip(rows, answers, strict=True) if there is None], now)
            return answers

        with self._pool.desk() as desk:
            answers = desk.write(work, timeout)
            sent = {each.queue for (each, _), there in zip(sendings, answers, strict=True) if there is None}
            desk.bells.ring_queues(sent)
        return answers

    def publish_once(self, messages: Mapping[str, Message], *, expires: float, timeout: float) -> Sequence[str]:
        """One transaction."""
        rows = dict(zip(messages, tables.prepare(list(messages.values())), strict=True))

        def work(sqlite: sqlite3.Connection) -> list[str]:
            now = time.time()
            changes = [Change(key, b"1", None, expires) for key in rows]
            made = ledger_table.change(sqlite, changes, now)
            fresh = [key for key, is_new in zip(rows, made, strict=True) if is_new]
            tables.add(sqlite, [rows[key] for key in fresh], now)
            return fresh

        with self._pool.desk() as desk:
            fresh = desk.write(work, timeout)
            desk.bells.ring_queues({messages[key].queue for key in fresh})
        return fresh

    def purge(self, queue: str, *, timeout: float) -> int:
        """Drop all ready and scheduled messages of a queue; returns how many."""
        dropped = 0
        with self._pool.desk() as desk:
            while count := desk.write(lambda sqlite: upkeep.purge(sqlite, queue), timeout):
                dropped += count
        return dropped

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """How full each queue is."""
        with self._pool.desk() as desk:
            return desk.read(lambda sqlite: upkeep.depth(sqlite, queues, time.time()), timeout)

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """All rules in force whose keys begin so."""
        with self._pool.desk() as desk:
            return desk.read(lambda sqlite: rulebook.read(sqlite, 0, prefix), timeout)

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """Write or drop rules; returns the last epoch."""
        with self._pool.desk() as desk:
            return desk.write(lambda sqlite: rulebook.write(sqlite, changes, time.time()), timeout)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._pool.close()
