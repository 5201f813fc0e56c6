"""Concludes deliveries that are not to run. On the I/O loop, but for those whose follow-ups lie in a payload store.

Fetcher and agent hand over what has ended without a run; the completions go to the completer. Reading from a payload
store may take its time, so that happens on a thread, while the delivery is held and renewed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.codec.escape import one_line
from celeriac.codec.reference import CONTENT_TYPE as REFERENCE
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Accept, Completion, Release
from celeriac.worker.closer import Aside
from celeriac.worker.runner import STORE_AWAY, Runner

__all__ = ["Concluder", "is_far", "sent_again"]

logger = logging.getLogger("celery.worker")

Ended = tuple[Delivery, o.Outcome]


def is_far(runner: Runner, delivery: Delivery) -> bool:
    """Whether the arguments of a delivery have to be read from a payload store."""
    message = delivery.message
    return runner.payloads is not None and isinstance(message, Message) and message.content_type == REFERENCE


def sent_again(delivery: Delivery) -> Completion:
    """The completion of what was settled early but never started: it is published again."""
    message = delivery.message
    return Completion(settlement=Accept(delivery), publish=(message,) if isinstance(message, Message) else ())


class Concluder:
    """``put`` takes the completions, ``aside`` runs what may take its time."""

    def __init__(
        self, runner: Runner, put: Callable[[Sequence[Completion]], None], aside: Aside = asyncio.to_thread
    ) -> None:
        self._runner = runner
        self._put = put
        self._aside = aside
        self._running: set[asyncio.Future[Any]] = set()

    def __call__(self, ended: Sequence[Ended]) -> list[Completion]:
        """Conclude; returns what is concluded already. What is not follows as soon as it is read."""
        at_once: list[Completion] = []
        for delivery, outcome in ended:
            if is_far(self._runner, delivery):
                running = asyncio.ensure_future(self._far(delivery, outcome))
                self._running.add(running)
                running.add_done_callback(self._running.discard)
            else:
                at_once.append(self._runner.conclude(delivery, outcome))
        if at_once:
            self._put(at_once)
        return at_once

    async def _far(self, delivery: Delivery, outcome: o.Outcome) -> None:
        try:
            completion = await self._aside(self._runner.conclude, delivery, outcome)
        except Exception as error:
            # Nobody waits for this future: without a completion the delivery would be held for ever.
            name = one_line(f"{delivery.message.task}[{delivery.message.id}]")
            logger.exception("Cannot conclude task %s, next try in %.0f s: %s", name, STORE_AWAY, error)
            completion = Completion(settlement=Release(delivery, due=self._runner.now() + STORE_AWAY))
        self._put([completion])
