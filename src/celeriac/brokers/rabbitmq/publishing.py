"""Blocking publishing for ``delay()``, with confirms, and what else producers ask: depth and purge.

As in Celery, messages with an ``eta`` go straight to their queue; workers delay them (``delays.py``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Line, monotonic
from celeriac.brokers.rabbitmq.convoy import Convoy
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.layout import NOT_FOUND, Layout, passive
from celeriac.brokers.rabbitmq.messages import header_of
from celeriac.brokers.rabbitmq.outgoing import outgoing
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.ports import STAGE_EXPIRES, AdapterOptions, Depth

__all__ = ["RabbitPublisher"]


class RabbitPublisher:
    """See ``celeriac.ports.Publisher``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._addresses = parse(url, options)
        self._convoy = Convoy(self._addresses, Layout(options), options.replies)
        self._asking = Line(self._addresses)
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._stages: dict[str, tuple[float, list[Message]]] = {}
        self._staging = threading.Lock()

    def _of_this_process(self) -> None:
        if self._pid != os.getpid():
            self._renew()  # the lock may have been held when we were forked, and what waits there is the parent's

    def publish(self, messages: Sequence[Message], *, timeout: float) -> None:
        """See ``Publisher.publish``. Some may be there and others not when it raises ``uncertain``."""
        out = [outgoing(message) for message in messages]
        if out:
            self._convoy.send(out, monotonic() + timeout)

    def stage(self, messages: Sequence[Message], *, stage: str, timeout: float) -> None:
        """See ``Publisher.stage``: RabbitMQ has no place for them, so they wait in this process."""
        self._of_this_process()
        for message in messages:
            header_of(message)
        now = time.monotonic()
        with self._staging:
            for name in [name for name, (until, _) in self._stages.items() if until < now]:
                del self._stages[name]
            if messages:
                _, kept = self._stages.get(stage, (0.0, []))
                self._stages[stage] = now + STAGE_EXPIRES, [*kept, *messages]

    def launch(self, stage: str, *, count: int, timeout: float) -> None:
        """See ``Publisher.launch``. Who is killed here has sent a part of them."""
        self._of_this_process()
        with self._staging:
            until, kept = self._stages.get(stage, (0.0, []))
            if until < time.monotonic() or len(kept) != count:
                raise OperationalError(
                    f"RabbitMQ at {self._addresses[0].masked}: what was put aside for one send is gone: send it again"
                )
            del self._stages[stage]
        self.publish(kept, timeout=timeout)

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """See ``Publisher.publish_if``; RabbitMQ keeps no ledger."""
        if changes:
            raise ImproperlyConfigured(
                f"{self._addresses[0].masked} keeps no ledger, which unique tasks and idempotency keys need: set "
                "ledger_url to a Redis or SQLite URL"
            )
        self.publish((message,), timeout=timeout)
        return None

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Broker.purge``: what waits ready. What is delayed or parked stays."""
        deadline = monotonic() + timeout
        with self._asking.use(deadline) as connection:
            try:
                return int(connection.ask((m.QUEUE_PURGE, 0, queue, False), deadline)[0])
            except Closed as error:
                if error.code != NOT_FOUND:
                    raise
                return 0

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Broker.depth``: the ready ones; the server does not tell the others over AMQP."""
        deadline = monotonic() + timeout
        depths: dict[str, Depth] = {}
        with self._asking.use(deadline) as connection:
            for queue in queues:
                try:
                    depths[queue] = Depth(ready=connection.ask(passive(queue), deadline)[1])
                except Closed as error:
                    if error.code != NOT_FOUND:
                        raise
                    depths[queue] = Depth()
        return depths

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._convoy.close()
        self._asking.close()
