"""Messages that are due later: kombu's native delayed delivery, under a prefix of our own. Pure.

28 topic exchanges and queues; the one of level n keeps a message for 2^n seconds and passes it on, by the bits of the
delay in the routing key. Whole seconds only: what is left of a second its consumer waits for under the lease.

The prefix keeps our messages away from bindings that Celery makes at its own ``celery_delayed_delivery``: its
``#.mail`` would catch ``foo.mail`` too, and whatever both had bound would arrive twice. Each queue is bound here by 28
words and its own name, so any queue works, whatever the type of its exchange.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.layout import ACCESS_REFUSED, NOT_FOUND, bind, declare_exchange, declare_queue

__all__ = ["LONGEST", "declaring", "entrance", "exchanges", "leading_again", "leading_to", "queues", "routing_key"]

_BITS = 28
_PREFIX = "celeriac_celery_delayed"
_DELIVERY = f"{_PREFIX}_delivery"
#: Seconds that a message can be kept at most; one that is due later goes round again.
LONGEST = 2**_BITS - 1
#: Behind the name of the queue, so that no wildcard and no name of somebody else fits.
_MARK = "celeriac-delay"


def _level(number: int) -> str:
    return f"{_PREFIX}_{number}"


def queues() -> list[str]:
    """All in which delayed messages wait."""
    return [_level(number) for number in range(_BITS)]


def exchanges() -> list[str]:
    """All that lead there, and out again."""
    return [_DELIVERY, *queues()]


def entrance() -> str:
    """The exchange that takes what is to be delayed."""
    return _level(_BITS - 1)


def _key(queue: str) -> str:
    """The name of the queue as words of a key: wildcards are not names."""
    if any(word in {"*", "#"} for word in queue.split(".")) or len(queue.encode()) > 150:
        import hashlib

        return hashlib.sha1(queue.encode(), usedforsecurity=False).hexdigest()
    return queue


def routing_key(queue: str, seconds: int) -> str:
    """The key that delays a message for so many seconds, then leads it to the queue."""
    bits = f"{min(max(seconds, 0), LONGEST):0{_BITS}b}"
    return ".".join((*bits, _key(queue), _MARK))


def leading_to(queue: str) -> Generator[tuple[Any, ...], Any, None]:
    """Lead what was delayed for a queue into it."""
    yield bind(queue, _DELIVERY, "*." * _BITS + f"{_key(queue)}.{_MARK}")


def leading_again(queue: str) -> Generator[tuple[Any, ...], Any, None]:
    """As ``leading_to``, by whoever takes from the queue: the one who delays does not hear that it was deleted and made
    anew, and what was on its way would be dropped. Left to others by a user who may not."""
    yield from declare_exchange(_DELIVERY, "topic", True, False)
    try:
        yield from leading_to(queue)
    except Closed as error:
        if error.code not in {ACCESS_REFUSED, NOT_FOUND}:
            raise


def declaring(kind: str) -> Generator[tuple[Any, ...], Any, None]:
    """All of it, as kombu declares it with a prefix. ``kind`` is the queues' type, quorum or classic."""
    yield from declare_exchange(_DELIVERY, "topic", True, False)
    for level in range(_BITS):
        name = _level(level)
        yield from declare_exchange(name, "topic", True, False)
        arguments: dict[str, Any] = {
            "x-queue-type": kind,
            "x-overflow": "reject-publish",
            "x-message-ttl": 2**level * 1000,
            "x-dead-letter-exchange": _level(level - 1) if level else _DELIVERY,
        }
        if kind == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        yield from declare_queue(name, True, False, False, arguments)
        front = "*." * (_BITS - 1 - level)
        yield bind(name, name, f"{front}1.#")
        onward = _level(level - 1) if level else _DELIVERY
        yield (m.EXCHANGE_BIND, 0, onward, name, f"{front}0.#", False, {})
