"""Two servers as one broker: queues on one, the ledger (rules, locks, limits, verdicts) on another.

For brokers whose server keeps no ledger (RabbitMQ), or keeps one that cannot limit (Redis Cluster). The resolver puts
the two together, so that neither adapter knows of it. What one server does in one step takes two here:
docs/how-to/idempotency.md tells in which order, and what a crash in between leaves behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.ports import AdapterOptions, BlockingLedger, Broker, DeadLetters, Ledger, Limiter, Publisher, Rules

if TYPE_CHECKING:
    from celeriac.beside.dead_port import BesideDeadLetters
    from celeriac.beside.publisher_port import BesidePublisher

__all__ = ["broker", "dead_letters", "lacks", "publisher"]


def lacks(inner: Broker) -> bool:
    """Whether a broker needs a ledger beside it."""
    return not (isinstance(inner, Rules) and isinstance(inner, Ledger))


def broker(inner: Broker, companion: Broker | None, options: AdapterOptions, **more: Any) -> Broker:
    """``inner`` with what it lacks, from ``companion``, the broker of the ledger's server: it is opened and closed with
    it, and of it only ``Ledger`` and ``Rules`` are used. None: ``inner`` keeps its own ledger. ``more``: see
    ``BesideBroker``."""
    if isinstance(inner, Limiter) and not lacks(inner):
        return inner
    from celeriac.beside.broker_port import beside

    return beside(inner, inner if companion is None else companion, options, **more)


def publisher(inner: Publisher, ledger: BlockingLedger, desk: Publisher) -> BesidePublisher:
    """``inner`` with conditional publishing and rules: ``ledger`` and ``desk`` are those of the ledger's server."""
    from celeriac.beside.publisher_port import BesidePublisher

    return BesidePublisher(inner, ledger, desk)


def dead_letters(inner: DeadLetters, ledger: BlockingLedger) -> BesideDeadLetters:
    """``inner``, whose letters get their locks from another server when they are sent again."""
    from celeriac.beside.dead_port import BesideDeadLetters

    return BesideDeadLetters(inner, ledger)
