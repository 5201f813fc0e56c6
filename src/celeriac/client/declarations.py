"""Queues as brokers are told to declare them: ``Queue`` → ``ports.Declaration``, with kombu's names of arguments.

Values only. Given to adapters by ``resolver.py``; only servers that keep declarations ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celeriac.client.queues import Exchange, Queue
from celeriac.client.registry import Queues
from celeriac.exceptions import QueueNotFound
from celeriac.ports import BindingFacts, Declaration

__all__ = ["declaration_of", "declarations"]


def declarations(conf: Any, queues: Queues | None = None) -> Callable[[str], Declaration | None]:
    """Looks a queue up among ``queues``, or those of the settings, which are read when first asked."""
    known = queues

    def find(name: str) -> Declaration | None:
        nonlocal known
        if known is None:
            known = Queues.from_settings(conf)
        try:
            return declaration_of(known[name])
        except QueueNotFound:
            return None

    return find


def declaration_of(queue: Queue) -> Declaration:
    """A queue and the exchanges it is bound to."""
    ways = [(queue.exchange, queue.routing_key, queue.binding_arguments)]
    ways += [(binding.exchange, binding.routing_key, binding.arguments) for binding in queue.bindings]
    return Declaration(
        name=queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=_arguments(queue),
        bindings=tuple(
            _binding(exchange, key, arguments)
            for exchange, key, arguments in ways
            if exchange is not None and exchange.name
        ),
        consumer_arguments=queue.consumer_arguments or {},
        undeclared=queue.no_declare,
    )


def _binding(exchange: Exchange, key: str, arguments: Any) -> BindingFacts:
    return BindingFacts(
        exchange=exchange.name,
        type=exchange.type,
        routing_key=key,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        arguments=arguments or {},
        exchange_arguments=exchange.arguments or {},
        undeclared=exchange.no_declare or exchange.passive,
    )


def _arguments(queue: Queue) -> dict[str, Any]:
    """Those given under their AMQP names win."""
    arguments: dict[str, Any] = {}
    for name, value, scale in (
        ("x-expires", queue.expires, 1000),
        ("x-message-ttl", queue.message_ttl, 1000),
        ("x-max-length", queue.max_length, 1),
        ("x-max-length-bytes", queue.max_length_bytes, 1),
        ("x-max-priority", queue.max_priority, 1),
    ):
        if value is not None:
            arguments[name] = int(value * scale)
    return {**arguments, **(queue.queue_arguments or {})}
