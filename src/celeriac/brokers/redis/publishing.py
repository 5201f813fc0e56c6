"""Blocking publishing for ``delay()``: one LPUSH for one message, one transaction for many.

As in Celery, messages with an ``eta`` go to the ready list too; workers move them to the schedule (DESIGN §4).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from hiredis import ReplyError

from celeriac.brokers.redis import census, rules
from celeriac.brokers.redis.blocking import Pool, monotonic
from celeriac.brokers.redis.errors import refused
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.ledger_keys import change_args
from celeriac.brokers.redis.scripts import (
    LAUNCH,
    LEDGER_CHANGE,
    PUBLISH,
    PUBLISH_IF,
    PUBLISH_ONCE,
    RULES_READ,
    RULES_SET,
)
from celeriac.brokers.redis.sockets import Word
from celeriac.brokers.redis.urls import parse
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.ports import STAGE_EXPIRES, AdapterOptions, Depth

__all__ = ["RedisPublisher"]

#: Most messages of one LPUSH.
_CHUNK = 300


class RedisPublisher:
    """See ``celeriac.ports.Publisher``."""

    def __init__(self, url: str, options: AdapterOptions, *, pool: Pool | None = None) -> None:
        """With a ``pool`` it is part of a cluster's, and the pool knows the address."""
        self._address = parse(url, options) if pool is None else pool.address
        self._layout = Layout(self._address, options)
        self._pool = pool or Pool(self._address, options.pool_limit)
        #: Where locks are kept.
        self._ledgers = self._pool, self._layout

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """See ``Publisher.publish``. All or none."""
        layout = self._layout
        if len(messages) == 1:
            message = messages[0]
            self._pool.call(
                ("LPUSH", layout.ready(message.queue, message), envelope.encode(message)), timeout, durable=True
            )
            return
        lists: dict[str, list[bytes]] = {}
        for message in messages:
            lists.setdefault(layout.ready(message.queue, message), []).append(envelope.encode(message))
        if len(lists) == 1:
            ((key, texts),) = lists.items()
            chunks: list[tuple[Word, ...]] = [
                ("LPUSH", key, *texts[at : at + _CHUNK]) for at in range(0, len(texts), _CHUNK)
            ]
            if len(chunks) == 1:
                self._pool.call(chunks[0], timeout, durable=True)
            else:
                self._pool.transaction(chunks, timeout, durable=True)
        elif lists:
            # A transaction would go on behind a key of a wrong type; the script looks first.
            args: list[Word] = [len(lists), 0]
            for texts in lists.values():
                args += (len(texts), *texts)
            self._pool.script(PUBLISH, [layout.schedules, *lists], args, timeout, durable=True)

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """See ``Publisher.stage``."""
        layout, key = self._layout, self._layout.stage(stage)
        lists: dict[str, list[bytes]] = {}
        for message in messages:
            lists.setdefault(layout.ready(message.queue, message), []).append(envelope.encode(message))
        if not lists:
            return
        life = int(STAGE_EXPIRES)
        commands: list[tuple[Word, ...]] = [("SADD", key, *lists), ("EXPIRE", key, life)]
        for name, texts in lists.items():
            staged = f"{key}:{name}"
            commands += [("LPUSH", staged, *texts[at : at + _CHUNK]) for at in range(0, len(texts), _CHUNK)]
            commands.append(("EXPIRE", staged, life))
        self._pool.transaction(commands, timeout)

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """See ``Publisher.launch``."""
        deadline, key = monotonic() + timeout, self._layout.stage(stage)
        names = [name.decode("utf-8", "surrogateescape") for name in self._pool.call(("SMEMBERS", key), timeout)]
        pairs = [each for name in names for each in (f"{key}:{name}", name)]
        left = max(deadline - monotonic(), 0.001)
        if not self._pool.script(LAUNCH, [key, *pairs], [count], left, durable=True):
            raise OperationalError(
                f"Redis at {self._address.masked}: what was put aside for one send is gone: send it again"
            )

    @property
    def place(self) -> tuple[Pool, Layout]:
        """What leads there, and the names of the keys."""
        return self._pool, self._layout

    # -- what a cluster's publisher asks of its parts, for a stage that is spread over several

    def name_stage(self, stage: str, queues: Sequence[str], *, timeout: float) -> None:
        """Remember for which queues something is put aside."""
        key = self._layout.stage(stage)
        self._pool.transaction([("SADD", key, *queues), ("EXPIRE", key, int(STAGE_EXPIRES))], timeout)

    def named_in_stage(self, stage: str, *, timeout: float) -> list[str]:
        """The queues that were named; forgotten by time."""
        names = self._pool.call(("SMEMBERS", self._layout.stage(stage)), timeout, repeat=True)
        return sorted(name.decode("utf-8", "surrogateescape") for name in names)

    def count_stage(self, stage: str, *, timeout: float) -> int:
        """How many messages are put aside here."""
        deadline, key = monotonic() + timeout, self._layout.stage(stage)
        names = self._pool.call(("SMEMBERS", key), timeout, repeat=True)
        left = max(deadline - monotonic(), 0.001)
        return sum(self._pool.call(("LLEN", b"%b:%b" % (key.encode(), name)), left, repeat=True) for name in names)

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """See ``Publisher.publish_if``."""
        layout = self._layout
        keys, args = change_args(layout, changes)
        list_key, text = layout.ready(message.queue, message), envelope.encode(message)
        there: Sequence[bytes | None] | None = self._pool.script(
            PUBLISH_IF, [list_key, *keys], [text, *args], timeout, durable=True
        )
        return there

    def publish_each_if(
        self, sendings: Sequence[tuple[Message, Sequence[Change]]], *, timeout: float
    ) -> Sequence[Sequence[bytes | None] | OperationalError | None]:
        """See ``EachPublisher``: the script for each, sent together."""
        layout = self._layout
        calls: list[tuple[Sequence[Word], Sequence[Word]]] = []
        for message, changes in sendings:
            keys, args = change_args(layout, changes)
            calls.append(([layout.ready(message.queue, message), *keys], [envelope.encode(message), *args]))
        replies = self._pool.scripts(PUBLISH_IF, calls, timeout, durable=True)
        return [refused(self._address, each) if isinstance(each, ReplyError) else each for each in replies]

    def publish_once(self, messages: Mapping[str, Message], *, expires: float, timeout: float) -> Sequence[str]:
        """See ``OncePublisher``."""
        deadline, layout = monotonic() + timeout, self._layout
        lists: dict[str, list[tuple[str, bytes]]] = {}
        for key, message in messages.items():
            lists.setdefault(layout.ready(message.queue, message), []).append((key, envelope.encode(message)))
        published: list[str] = []
        for name, pairs in lists.items():
            for at in range(0, len(pairs), _CHUNK):
                part = pairs[at : at + _CHUNK]
                keys = [name, *(layout.ledger(key) for key, _ in part)]
                args: list[Word] = [max(1, round(expires * 1000)), *(text for _, text in part)]
                left = max(deadline - monotonic(), 0.001)
                made = self._pool.script(PUBLISH_ONCE, keys, args, left, durable=True)
                published += [key for (key, _), is_new in zip(part, made, strict=True) if is_new]
        return published

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Broker.purge``."""
        answer: int = self._drive(census.purge(self._layout, self._ledgers[1], queue), timeout)
        return answer

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        answer: Mapping[str, Depth] = self._drive(census.depth(self._layout, queues), timeout)
        return answer

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """See ``RulesDesk.rules``."""
        return rules.rules_read(self._pool.script(RULES_READ, self._layout.rules, [0, prefix], timeout, repeat=True))

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """See ``RulesDesk.set_rules``."""
        # Written twice it is the same rule, under a later epoch.
        return int(self._pool.script(RULES_SET, self._layout.rules, rules.change_args(changes), timeout, repeat=True))

    def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        self._pool.close()

    def _drive(self, asking: Generator[census.Ask, Any, Any], timeout: float) -> Any:
        deadline = monotonic() + timeout
        reply: Any = None
        while True:
            try:
                script, keys, args = asking.send(reply)
            except StopIteration as end:
                return end.value
            left = max(deadline - monotonic(), 0.001)
            if script is None:
                reply = self._pool.call(tuple(keys), left, repeat=True)
            else:
                pool = self._ledgers[0] if script is LEDGER_CHANGE else self._pool
                reply = pool.script(script, keys, args, left, repeat=True)
