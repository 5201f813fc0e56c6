"""Blocking publishing for ``delay()``: one LPUSH for one message, one transaction for many.

As in Celery, messages with an ``eta`` go to the ready list too; workers move them to the schedule (DESIGN §4).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from celeriac.brokers.redis import census
from celeriac.brokers.redis.address import parse
from celeriac.brokers.redis.blocking import Pool, monotonic
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.scripts import LAUNCH, PUBLISH
from celeriac.brokers.redis.sockets import Word
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.message import Message
from celeriac.ports import STAGE_EXPIRES, AdapterOptions, Depth

__all__ = ["RedisPublisher"]

#: Most messages of one LPUSH.
_CHUNK = 300


class RedisPublisher:
    """See ``celeriac.ports.Publisher``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._address = parse(url, options)
        self._layout = Layout(self._address, options)
        self._pool = Pool(self._address, options.pool_limit)

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """See ``Publisher.publish``. All or none."""
        layout = self._layout
        if len(messages) == 1:
            message = messages[0]
            self._pool.call(("LPUSH", layout.ready(message.queue, message), envelope.encode(message)), timeout)
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
                self._pool.call(chunks[0], timeout)
            else:
                self._pool.transaction(chunks, timeout)
        elif lists:
            # A transaction would go on behind a key of a wrong type; the script looks first.
            args: list[Word] = [len(lists), 0]
            for texts in lists.values():
                args += (len(texts), *texts)
            self._pool.script(PUBLISH, [layout.schedules, *lists], args, timeout)

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
        if not self._pool.script(LAUNCH, [key, *pairs], [count], max(deadline - monotonic(), 0.001)):
            raise OperationalError(
                f"Redis at {self._address.masked}: what was put aside for one send is gone: send it again"
            )

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Broker.purge``."""
        answer: int = self._drive(census.purge(self._layout, queue), timeout)
        return answer

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Broker.depth``."""
        answer: Mapping[str, Depth] = self._drive(census.depth(self._layout, queues), timeout)
        return answer

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
                reply = self._pool.script(script, keys, args, left, repeat=True)
