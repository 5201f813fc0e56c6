"""Long tasks: RabbitMQ closes a channel that has held a delivery for longer than its ``consumer_timeout``.

Before that, a delivery changes hands from us to us: a copy goes into a queue of this child's own, which only this child
consumes, and the first one is acknowledged when the copy has come. So the clock begins anew, and only one is there.
When this child is gone, what is in its queue expires at once and is led back to where it came from (ADR 0015).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Generator, Sequence
from typing import Any

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.fields import decode_header
from celeriac.brokers.rabbitmq.frames import Event, ack
from celeriac.brokers.rabbitmq.holding import Entry
from celeriac.brokers.rabbitmq.intake import Intake
from celeriac.brokers.rabbitmq.layout import bind, declare_exchange, declare_queue
from celeriac.brokers.rabbitmq.messages import HELD, changed, kept_of
from celeriac.brokers.rabbitmq.outbox import Outbox
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions

__all__ = ["Keeper"]

logger = logging.getLogger("celeriac.brokers.rabbitmq")

#: The server's default, in seconds.
_DEFAULT = 1800.0
#: Milliseconds after which what nobody holds is led back, and after which an unused queue goes.
_BACK, _UNUSED = 1000, 3_600_000
_TIMEOUT = re.compile(r"timed out.*?(\d+) ms", re.DOTALL)


class Keeper:
    """Looks after the deliveries of one intake."""

    def __init__(self, intake: Intake, outbox: Outbox, options: AdapterOptions) -> None:
        self._intake = intake
        self._outbox = outbox
        self._name = f"{HELD}{options.owner}"
        given = options.transport.get("consumer_timeout", _DEFAULT)
        #: 0: the server has none.
        self._timeout = float(given or 0.0)
        #: Tokens whose copies are under way.
        self._moving: set[str] = set()
        intake.on_kept = self._arrived
        intake.on_closed = self._learn

    def _learn(self, verdict: Closed) -> None:
        """The server's text tells its timeout."""
        found = _TIMEOUT.search(verdict.text) if verdict.number == 0 or verdict.code == 406 else None
        if found is not None and "delivery acknowledgement" in verdict.text:
            self._timeout = int(found.group(1)) / 1000
            logger.warning(
                "RabbitMQ has taken back tasks that ran for longer than its consumer_timeout of %g s; from now on they "
                "are kept in time here: say so to all workers by broker_transport_options={'consumer_timeout': %g}",
                self._timeout,
                self._timeout,
            )

    async def look_after(self, entries: Sequence[Entry]) -> None:
        """Let those change hands whose time is half over. What does not work now, for there is an alarm, works next
        time: they are held until their time is over."""
        if not self._timeout:
            return
        if not self._intake.consuming(self._name):
            self._moving.clear()  # what was on its way went with the queue, or with the channel
        since = time.monotonic() - self._timeout / 2
        old = [entry for entry in entries if entry.since < since and entry.delivery.token not in self._moving]
        if old:
            try:
                await self._move(old)
            except OperationalError as error:
                logger.warning("Cannot keep %d long tasks in time, next try soon: %s", len(old), error)

    async def _move(self, old: Sequence[Entry]) -> None:
        await self._prepare()
        held = self._intake.held.entries
        out = []
        tokens = set()
        for entry in old:
            if held.get(entry.delivery.token) is not entry:
                continue  # it has ended, or was lost with its channel: a copy would be a second one
            try:
                header = changed(entry.header, entry.body, kept=entry.delivery.token)
            except (ValueError, TypeError):
                continue  # damaged: it is not run, so it is not held for long
            out.append(Outgoing(self._name, entry.queue, "", header, entry.body))
            tokens.add(entry.delivery.token)
        if not out:
            return
        self._moving |= tokens
        try:
            await self._outbox.publish(out)
        except BaseException:
            self._moving -= tokens
            raise

    async def _prepare(self) -> None:
        """The queue, and our subscription to it; anew when the channel is another one, or the queue was deleted."""
        if not self._intake.consuming(self._name):
            self._outbox.declared.discard(self._name)
        await self._outbox.declare(self._name, self._declaring())
        if self._intake.channel is not None and not self._intake.consuming(self._name):
            self._intake.consume(self._name, 0)
            await self._intake.alive()  # before a copy comes, or it would be led back after a second

    def _declaring(self) -> Generator[tuple[Any, ...], Any, None]:
        yield from declare_exchange(self._name, "fanout", True, True)
        arguments: dict[str, Any] = {
            "x-message-ttl": _BACK,
            "x-expires": _UNUSED,
            "x-dead-letter-exchange": "",
        }
        try:
            yield from declare_queue(
                self._name,
                True,
                False,
                False,
                {
                    **arguments,
                    "x-queue-type": "quorum",
                    "x-overflow": "reject-publish",
                    "x-dead-letter-strategy": "at-least-once",
                },
            )
        except Closed:  # a server before 3.10
            yield from declare_queue(self._name, True, False, False, {**arguments, "x-queue-type": "classic"})
        yield bind(self._name, self._name, "")

    def _arrived(self, event: Event, number: int, redelivered: bool) -> None:
        """A copy is here: it takes the place of the first one. One that was given back is all there is of its task: it
        is led back to its own queue."""
        intake, channel = self._intake, self._intake.channel
        assert channel is not None
        try:
            token = kept_of(decode_header(event.header))
        except ValueError:
            token = ""
        self._moving.discard(token)
        held = intake.held
        entry = held.entries.get(token)
        if entry is None or entry.tag not in held.open:
            ended = ack(channel.number, number)
            channel.send(m.method(channel.number, m.BASIC_NACK, number, False, False) if redelivered else ended)
            return
        frames = held.acks(channel.number, [entry])
        entry.tag, entry.since, entry.consumer = number, time.monotonic(), None
        entry.header = event.header
        #: Given back it would come into the queue of this child: it goes back as a copy.
        entry.copies = entry.kept = True
        held.open[number] = entry
        channel.send(frames)
