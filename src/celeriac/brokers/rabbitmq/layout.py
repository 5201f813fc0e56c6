"""What is declared on the server, and how: queues, exchanges and bindings as Celery declares them, and our own.

Pure: generators yield what to ask (method and arguments) and are sent the answers; ``Closed`` is thrown into them.
Run by both kinds of connection.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Mapping
from typing import Any

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.ports import AdapterOptions, Declaration

__all__ = [
    "DEAD",
    "Layout",
    "bind",
    "declare_exchange",
    "declare_queue",
    "passive",
]

logger = logging.getLogger("celeriac.brokers.rabbitmq")

Asking = Generator[tuple[Any, ...], Any, None]

#: The queue of dead letters.
DEAD = "celeriac.dead"
PRECONDITION_FAILED, NOT_FOUND, ACCESS_REFUSED = 406, 404, 403
_ARGUMENT = re.compile(
    r"inequivalent arg '([^']+)' for (\w+) '([^']+)' in vhost '[^']*': received (.+?) but current is (.+)"
)
#: Complaints are made once in a process.
_told: set[str] = set()


class Layout:
    """The names and declarations that an app's options ask for."""

    def __init__(self, options: AdapterOptions) -> None:
        self._options = options

    def of(self, queue: str) -> Declaration:
        """How a queue is declared."""
        find = self._options.declarations
        found = find(queue) if find is not None else None
        return found if found is not None else Declaration(name=queue)

    def declaring(self, queue: str) -> Asking:
        """Everything that makes a queue reachable, in Celery's order: exchange, queue, binding."""
        declared = self.of(queue)
        if declared.undeclared:
            return
        for binding in declared.bindings:
            if binding.exchange and not binding.undeclared:
                yield from declare_exchange(
                    binding.exchange, binding.type, binding.durable, binding.auto_delete, binding.exchange_arguments
                )
        yield from declare_queue(queue, declared.durable, declared.exclusive, declared.auto_delete, declared.arguments)
        for binding in declared.bindings:
            if binding.exchange:
                try:
                    yield bind(queue, binding.exchange, binding.routing_key, binding.arguments)
                except Closed as error:
                    if error.code != ACCESS_REFUSED:
                        raise

    def declaring_dead(self) -> Asking:
        """The queue of dead letters: the server drops the oldest beyond their time, number and size."""
        options = self._options
        arguments: dict[str, Any] = {"x-queue-type": "classic"}
        if options.dead_letter_expires < 10 * 365 * 86400:
            arguments["x-message-ttl"] = int(options.dead_letter_expires * 1000)
        if options.dead_letter_limit < 2**31:
            arguments["x-max-length"] = options.dead_letter_limit
        if options.dead_letter_max_bytes < 2**40:
            arguments["x-max-length-bytes"] = options.dead_letter_max_bytes
        yield from declare_queue(DEAD, True, False, False, arguments)


def declare_queue(name: str, durable: bool, exclusive: bool, auto_delete: bool, arguments: Mapping[str, Any]) -> Asking:
    """A queue; one that is there with other arguments is used as it is, with a warning; one that this user may not
    declare has to be there."""
    try:
        yield (m.QUEUE_DECLARE, 0, name, False, durable, exclusive, auto_delete, False, arguments)
    except Closed as error:
        if error.code not in {PRECONDITION_FAILED, ACCESS_REFUSED}:
            raise
        if error.code == PRECONDITION_FAILED:
            _tell(error, f"queue {name!r}")
        yield passive(name)


def declare_exchange(
    name: str, kind: str, durable: bool, auto_delete: bool, arguments: Mapping[str, Any] | None = None
) -> Asking:
    """An exchange; one that is there and differs is used as it is, with a warning. Not the server's own."""
    if not name or name.startswith("amq."):
        return
    try:
        yield (m.EXCHANGE_DECLARE, 0, name, kind, False, durable, auto_delete, False, False, arguments or {})
    except Closed as error:
        if error.code not in {PRECONDITION_FAILED, ACCESS_REFUSED}:
            raise
        if error.code == PRECONDITION_FAILED:
            _tell(error, f"exchange {name!r}")


def passive(name: str) -> tuple[Any, ...]:
    """Ask about a queue without making it: name, messages, consumers; ``Closed`` with 404 where there is none."""
    return (m.QUEUE_DECLARE, 0, name, True, False, False, False, False, {})


def bind(queue: str, exchange: str, routing_key: str, arguments: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
    """Bind a queue."""
    return (m.QUEUE_BIND, 0, queue, exchange, routing_key, False, arguments or {})


def _tell(error: Closed, what: str) -> None:
    """One line: what differs, and what to do."""
    found = _ARGUMENT.search(error.text)
    if found is None:
        line = f"RabbitMQ has {what} with other properties ({error.text})"
    else:
        name, _, _, ours, theirs = found.groups()
        line = f"RabbitMQ has {what} with another {name}: ours is {ours}, the server's is {theirs}"
    if line not in _told:
        _told.add(line)
        logger.warning("%s; it is used as it is: correct the settings, or drain and delete it", line)
