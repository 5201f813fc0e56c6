"""RabbitMQ: Celery's exchanges and queues on the wire, over a lean AMQP 0-9-1 connection of our own (ADR 0014).

``amqp://``, ``amqps://`` (TLS), ``pyamqp://``, several servers with ``;``; ``rpc://`` for results in reply queues.
Reached through ``celeriac.client.resolver`` only. The blocking side loads no asyncio: each function
imports what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.ports import AdapterOptions

if TYPE_CHECKING:
    from celeriac.brokers.rabbitmq.calling import RabbitCaller
    from celeriac.brokers.rabbitmq.dead import RabbitDeadLetters
    from celeriac.brokers.rabbitmq.publishing import RabbitPublisher
    from celeriac.brokers.rabbitmq.queues import RabbitBroker
    from celeriac.brokers.rabbitmq.scratch_port import RabbitScratch

__all__ = ["broker", "caller", "dead_letters", "publisher", "scratch"]


def broker(url: str, options: AdapterOptions) -> RabbitBroker:
    """The broker of a worker: ``Broker`` and ``Bus``. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.rabbitmq.queues import RabbitBroker

    return RabbitBroker(url, options)


def publisher(url: str, options: AdapterOptions) -> RabbitPublisher:
    """Blocking publishing for producers. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.rabbitmq.publishing import RabbitPublisher

    return RabbitPublisher(url, options)


def caller(url: str, options: AdapterOptions) -> RabbitCaller:
    """The asking side of remote control. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.rabbitmq.calling import RabbitCaller

    return RabbitCaller(url, options)


def dead_letters(url: str, options: AdapterOptions) -> RabbitDeadLetters:
    """Blocking access to the dead letters. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.rabbitmq.dead import RabbitDeadLetters

    return RabbitDeadLetters(url, options)


def scratch(url: str, options: AdapterOptions, name: str) -> RabbitScratch:
    """A place of its own for tests: a virtual host. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.rabbitmq.scratch_port import RabbitScratch

    return RabbitScratch(url, options, name)
