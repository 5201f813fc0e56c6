"""Settles tasks before they start (``acks_late=False``), however long the broker is away. For the fetcher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.model.settle import Accept, Completion, Release, Settlement
from celeriac.ports import Broker, Clock
from celeriac.worker.outage import Outage
from celeriac.worker.runner import Runner

__all__ = ["EarlyAcks"]

logger = logging.getLogger("celery.worker.consumer")


class EarlyAcks:
    """Of one child: ``early`` gets the tokens of what was settled, ``held`` loses those that were refused."""

    def __init__(
        self,
        broker: Broker,
        runner: Runner,
        backoff: Outage,
        clock: Clock,
        *,
        held: dict[str, Delivery],
        early: set[str],
        conclude: Callable[[Sequence[Completion]], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._broker = broker
        self._runner = runner
        self._backoff = backoff
        self._clock = clock
        self._held = held
        self._early = early
        self._conclude = conclude
        self._stopping = stopping

    async def settle(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Settle those of such tasks: at most once. Returns what is to run."""
        early = [delivery for delivery in deliveries if not self._acks_late(delivery)]
        if not early:
            return deliveries
        refused = await self._accept([Accept(delivery) for delivery in early])
        if refused is None:
            self._conclude([Completion(settlement=Release(delivery)) for delivery in early])
            return [delivery for delivery in deliveries if self._acks_late(delivery)]
        lost = {settlement.delivery.token for settlement in refused}
        self._early.update(delivery.token for delivery in early if delivery.token not in lost)
        for token in lost:
            self._held.pop(token, None)
        return [delivery for delivery in deliveries if delivery.token not in lost]

    def _acks_late(self, delivery: Delivery) -> bool:
        found = self._runner.entry(delivery.message.task)
        return found is None or found.options.acks_late

    async def _accept(self, accepts: Sequence[Accept]) -> Sequence[Settlement] | None:
        """The refused ones; None when the child stops before the broker has answered."""
        again = False
        while not self._stopping():
            try:
                refused = await self._broker.settle(accepts)
            except OperationalError as error:
                again, delay = True, self._backoff.next()
                self._backoff.tell(
                    logger, "Cannot acknowledge %d tasks, next try in %.1f s: %s", len(accepts), delay, error
                )
                await self._clock.sleep(delay)
                continue
            # Where the server gives back what a dead connection held, an earlier try says nothing.
            if again and not self._broker.traits.requeues and self._clock.monotonic() < self._runner.valid_until:
                # Nobody else can have had them: only the answer to an earlier try was lost.
                refused = [settlement for settlement in refused if settlement.delivery.token not in self._held]
            return refused
        return None
