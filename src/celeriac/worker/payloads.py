"""Drops the payloads of messages that have ended, and those that nobody came for.

On a thread of its own: a payload store may be far away. What is not dropped here goes with its day.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from celeriac.client.payloads import Payloads
from celeriac.codec.reference import CONTENT_TYPE
from celeriac.exceptions import CeleryError
from celeriac.model.message import Delivery, Message

__all__ = ["PayloadDropper"]

logger = logging.getLogger("celery.worker")


class PayloadDropper:
    """Called, on the I/O loop, with deliveries whose end is written; ``sweep`` is the agent's."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._running: set[asyncio.Future[None]] = set()

    def __call__(self, deliveries: Sequence[Delivery]) -> None:
        """Drop what their messages refer to. Copies in other queues may refer to the same: those keep it."""
        messages = [
            message
            for delivery in deliveries
            if isinstance(message := delivery.message, Message)
            and message.content_type == CONTENT_TYPE
            and not message.exchange
        ]
        if messages:
            running = asyncio.ensure_future(asyncio.to_thread(self._drop, messages))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    def _drop(self, messages: Sequence[Message]) -> None:
        for message in messages:
            try:
                self._payloads.drop_body(message)
            except CeleryError as error:
                logger.debug("The payload of %s[%s] is left to the sweep: %s", message.task, message.id, error)

    async def sweep(self) -> None:
        """Drop what is past its day."""
        try:
            await asyncio.to_thread(self._payloads.sweep)
        except CeleryError as error:
            logger.debug("Cannot sweep the payload store: %s", error)
