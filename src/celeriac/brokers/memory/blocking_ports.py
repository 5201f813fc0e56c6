"""The blocking ports of ``memory://``: ``Publisher``, ``Reader`` and ``Caller``. Used by producers, in any thread.

Threads wait in real time, whatever clock the server has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from queue import Empty
from typing import Any

from celeriac.brokers.memory.broker_port import (
    launch,
    publish,
    publish_each_if,
    publish_if,
    publish_once,
    purge,
    set_rules,
)
from celeriac.brokers.memory.broker_port import stage as put_aside
from celeriac.brokers.memory.results import Watcher
from celeriac.brokers.memory.shared import Server
from celeriac.codec.envelope import new_id
from celeriac.codec.json import dumps, loads
from celeriac.model.chord import NewChord
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, Depth

__all__ = ["MemoryCaller", "MemoryPublisher", "MemoryReader"]


class MemoryPublisher:
    """Publishing for ``delay()``."""

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self._server = server

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """See ``Publisher.publish``."""
        publish(self._server, messages)

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """See ``Publisher.stage``."""
        put_aside(self._server, messages, stage)

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """See ``Publisher.launch``."""
        launch(self._server, stage, count)

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """See ``Publisher.publish_if``."""
        return publish_if(self._server, message, changes)

    def publish_each_if(
        self, sendings: Sequence[tuple[Message, Sequence[Change]]], *, timeout: float
    ) -> Sequence[Sequence[bytes | None] | None]:
        """See ``EachPublisher``."""
        return publish_each_if(self._server, sendings)

    def publish_once(self, messages: Mapping[str, Message], *, expires: float, timeout: float) -> Sequence[str]:
        """See ``OncePublisher``."""
        return publish_once(self._server, messages, expires)

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Publisher.purge``."""
        with self._server.lock:
            return purge(self._server, queue)

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Publisher.depth``."""
        with self._server.lock:
            return {name: self._server.queues.depth(name, self._server.clock.now()) for name in queues}

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """See ``RulesDesk.rules``."""
        with self._server.lock:
            return self._server.rules.named(prefix)

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """See ``RulesDesk.set_rules``."""
        with self._server.lock:
            return set_rules(self._server, changes)

    def close(self) -> None:
        """See ``Publisher.close``."""


class MemoryReader:
    """Results for ``.get()``, and what the senders of groups and chords write."""

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self._server = server
        self._chord_token = options.chord_token

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """See ``Reader.get``."""
        server = self._server
        with server.lock:
            tick = server.clock.monotonic()
            return [server.results.get(task_id, tick) for task_id in ids]

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """See ``Reader.wait``."""
        server, watcher = self._server, Watcher()
        with server.lock:
            server.results.watch(ids, watcher, server.clock.monotonic())
        try:
            watcher.event.wait(timeout)
        finally:
            with server.lock:
                server.results.unwatch(ids, watcher)
        return watcher.id

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """See ``Reader.put``."""
        server = self._server
        with server.lock:
            tick = server.clock.monotonic()
            for result in results:
                server.results.put(result, tick)

    def forget(self, ids: Sequence[str], *, timeout: float) -> None:
        """See ``Reader.forget``."""
        with self._server.lock:
            self._server.results.forget(ids)

    def open_chords(self, chords: Sequence[NewChord], *, timeout: float) -> None:
        """See ``Reader.open_chords``."""
        server = self._server
        with server.lock:
            tick = server.clock.monotonic()
            for chord in chords:
                server.chords.open(chord, tick, self._chord_token)

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """See ``Reader.grow_chord``."""
        server = self._server
        with server.lock:
            server.chords.grow(chord, by, server.clock.monotonic())

    def save_group(self, group: str, body: bytes, *, expires: float | None, timeout: float) -> None:
        """See ``Reader.save_group``."""
        self.put([StoredResult(_saved(group), body, True, expires)], timeout=timeout)

    def load_group(self, group: str, *, timeout: float) -> bytes | None:
        """See ``Reader.load_group``."""
        return self.get([_saved(group)], timeout=timeout)[0]

    def drop_group(self, group: str, *, timeout: float) -> None:
        """See ``Reader.drop_group``."""
        self.forget([_saved(group)], timeout=timeout)

    def close(self) -> None:
        """See ``Reader.close``."""


def _saved(group: str) -> str:
    """Under what a group is kept among the records: no task has such an id."""
    return f"\0group\0{group}"


class MemoryCaller:
    """Remote control for ``app.control``."""

    EXCHANGE = "celery.pidbox"
    REPLY_EXCHANGE = "reply.celery.pidbox"

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self._server = server

    def call(
        self, request: Mapping[str, Any], *, timeout: float, limit: int | None = None, reply: bool = True
    ) -> Sequence[Mapping[str, Any]]:
        """See ``Caller.call``."""
        server, ticket = self._server, request.get("ticket") or new_id()
        headers = dumps({"clock": 0, "expires": server.clock.now() + timeout})
        if not reply:
            with server.lock:
                server.topics.emit(self.EXCHANGE, (dumps({**request, "ticket": ticket}), headers))
            return []
        address = request.get("reply_to") or {"exchange": self.REPLY_EXCHANGE, "routing_key": new_id()}
        with server.lock:
            replies = server.topics.bind(address["exchange"], address["routing_key"])
            body = dumps({**request, "ticket": ticket, "reply_to": address})
            server.topics.emit(self.EXCHANGE, (body, headers))
        answers: list[Mapping[str, Any]] = []
        deadline = time.monotonic() + timeout
        try:
            while limit is None or len(answers) < limit:
                payload, answered = replies.get(timeout=max(0.0, deadline - time.monotonic()))
                if loads(answered).get("ticket") == ticket:
                    answers.append(loads(payload))
        except Empty:
            pass  # the time is up
        finally:
            with server.lock:
                server.topics.unbind(address["exchange"], address["routing_key"])
        return answers

    def close(self) -> None:
        """See ``Caller.close``."""
