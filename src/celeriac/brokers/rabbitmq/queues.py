"""``RabbitBroker``: the asynchronous ports of RabbitMQ, ``Broker`` and ``Bus``, for workers.

Two connections: what is taken in (``intake.py``), which only consumes and acknowledges and so goes on during an alarm,
and what is sent (``outbox.py``). A delivery is held by the channel that brought it: when that is gone the server
gives it back, and its token is refused here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from celeriac.brokers.rabbitmq import delays
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.bus import RabbitBus
from celeriac.brokers.rabbitmq.deaths import outgoing_dead
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.holding import Entry
from celeriac.brokers.rabbitmq.intake import SHORT, Intake
from celeriac.brokers.rabbitmq.keeping import Keeper
from celeriac.brokers.rabbitmq.layout import DEAD, NOT_FOUND, Layout, passive
from celeriac.brokers.rabbitmq.looking import look
from celeriac.brokers.rabbitmq.messages import changed
from celeriac.brokers.rabbitmq.outbox import Outbox
from celeriac.brokers.rabbitmq.outgoing import FRAME_BYTES, Outgoing, outgoing
from celeriac.exceptions import OperationalError
from celeriac.model.dead import DeadFilter
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Accept, DeadLetter, DeadReason, Release, Settlement
from celeriac.ports import AdapterOptions, DeadRecord, Depth, Traits

__all__ = ["RabbitBroker"]

#: A channel that has answered so many seconds ago is there.
_FRESH = 1.0
#: Seconds until the maintenance is useful again: the server does most of it.
_MAINTENANCE = 3.0


class RabbitBroker:
    """One instance serves one event loop."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        addresses = parse(url, options)
        self.traits = Traits(durable=True, native_delay=True, server=addresses[0].server, requeues=True)
        self._options = options
        self._layout = Layout(options)
        self._intake = Intake(addresses, options, self._layout)
        self._outbox = Outbox(addresses, self._layout)
        self._bus = RabbitBus(addresses, self._outbox)
        self._keeper = Keeper(self._intake, self._outbox, options)
        self._is_open = False
        #: Tokens whose end was written by a call that failed in another part: they are held, and ended.
        self._ended: set[str] = set()
        #: Tokens whose end is being written: held until that is over.
        self._ending: set[str] = set()
        self._addresses = addresses

    async def open(self) -> None:
        """See ``Broker.open``."""
        self._intake.closed = False
        await self._intake.open()
        self._is_open = True

    async def close(self) -> None:
        """See ``Broker.close``: what was held goes back at once."""
        self._is_open = False
        await self._bus.close()
        await self._intake.close()
        await self._outbox.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise OperationalError(f"the broker {self._addresses[0].masked} is closed: call open() first")

    # -- messages in and out -----------------------------------------------------------------------------------------

    async def declare(self, queues: Sequence[str]) -> None:
        """See ``Broker.declare``."""
        self._check_open()
        await self._intake.declare(queues)

    def check(self, message: Message) -> None:
        """See ``Particular.check``."""
        outgoing(message)

    async def publish(self, messages: Sequence[Message]) -> None:
        """See ``Broker.publish``. When it raises, some may be there."""
        self._check_open()
        now = time.time()
        out = [await self._out(message, now) for message in messages]
        if out:
            await self._outbox.publish(out)

    async def _out(self, message: Message, now: float) -> Outgoing:
        """Where a message goes: its queue, or what delays it."""
        direct = outgoing(message)
        if message.due is None or message.due - now < SHORT or not message.queue:
            return direct
        return await self._delayed(message.queue, message.due - now, direct.header, message.body)

    async def _delayed(self, queue: str, seconds: float, header: bytes, body: bytes) -> Outgoing:
        """To be in a queue after so many whole seconds."""
        box = self._outbox
        await box.declare(delays.entrance(), delays.declaring(self._options.delay_queue_type))
        await box.declare(queue, self._layout.declaring(queue))
        await box.declare(f"delay of {queue}", delays.leading_to(queue))
        return Outgoing(delays.entrance(), delays.routing_key(queue, int(seconds)), "", header, body)

    async def claim(self, queues: Sequence[str], *, limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        self._check_open()
        return await self._intake.claim(queues, limit, wait)

    # -- ends --------------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """See ``Broker.settle``. What needs no message is written first, so that it is written during an alarm too."""
        self._check_open()
        tokens = {each.delivery.token for each in settlements} & self._intake.held.entries.keys()
        self._ending |= tokens
        try:
            return await self._settle(settlements)
        finally:
            self._ending -= tokens

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        held = self._intake.held
        acks: list[Entry] = []
        fronts: list[Entry] = []
        copies: list[tuple[Entry, Settlement]] = []
        refused: list[Settlement] = []
        for settlement in settlements:
            token = settlement.delivery.token
            entry = held.entries.pop(token, None)
            if entry is None:
                if token in self._ended:
                    self._ended.discard(token)
                else:
                    refused.append(settlement)
            elif isinstance(settlement, Accept):
                acks.append(entry)
            elif not isinstance(settlement, Release) or entry.told is not None:
                copies.append((entry, settlement))
            elif self._goes_back(entry, settlement):
                fronts.append(entry)
            elif not self._stays(entry, settlement):
                copies.append((entry, settlement))
        self._intake.acknowledge(acks)
        self._intake.give_back(fronts)
        if copies:
            await self._copy(copies, [each.delivery.token for each in (*acks, *fronts)])
        if acks or fronts or copies:
            await self._intake.alive()
        return refused

    @staticmethod
    def _goes_back(entry: Entry, release: Release) -> bool:
        """To the front as it is: the server's own way."""
        later = release.due is not None and release.due > time.time()
        return not (release.back or later or release.marks is not None or entry.copies)

    def _stays(self, entry: Entry, release: Release) -> bool:
        """It is due within a moment: it waits here."""
        due = release.due
        if due is None or release.marks is not None or not 0 < due - time.time() <= SHORT:
            return False
        entry.due = due
        self._intake.keep(entry)
        return True

    async def _copy(self, copies: Sequence[tuple[Entry, Settlement]], written: Sequence[str]) -> None:
        """Publish what takes the place of a delivery, then acknowledge that. Killed in between, both are there."""
        held = self._intake.held
        out: list[Outgoing] = []
        try:
            for entry, settlement in copies:
                out.append(await self._replacement(entry, settlement))
            await self._outbox.publish(out)
        except BaseException as error:
            # The caller tries again, with what is written already among it.
            if not isinstance(error, OperationalError) or error.uncertain:
                # Whatever the time is then: it is the same copy, which the outbox knows by its header.
                for (entry, settlement), letter in zip(copies, out, strict=False):
                    if isinstance(settlement, DeadLetter) or letter.key != DEAD:
                        entry.told = settlement, letter.header
            if held is self._intake.held:
                held.entries.update({settlement.delivery.token: entry for entry, settlement in copies})
                self._ended.update(written)
            raise
        if held is self._intake.held:
            self._intake.acknowledge([entry for entry, _ in copies])

    async def _replacement(self, entry: Entry, settlement: Settlement) -> Outgoing:
        now = time.time()
        told = entry.told[1] if entry.told is not None and entry.told[0] == settlement else None
        if isinstance(settlement, DeadLetter):
            await self._outbox.declare(DEAD, self._layout.declaring_dead())
            return Outgoing("", DEAD, "", told, entry.body) if told else outgoing_dead(entry, settlement, now)
        assert isinstance(settlement, Release)
        due, queue = settlement.due, entry.queue
        wait = due - now if due is not None else 0.0
        delivery, marks = entry.delivery, settlement.marks
        waited = marks is not None and marks.reserved
        shown = delivery.redelivered or (marks is not None and not waited)
        then = due if wait > 0 else None
        try:
            header = told or changed(entry.header, entry.body, marks=marks, due=then, redelivered=shown)
            if len(header) > FRAME_BYTES:
                raise ValueError(f"its headers would have {len(header)} bytes, a frame holds {FRAME_BYTES}")
        except (TypeError, ValueError) as error:
            # A stranger's: there can be no copy of it, and it cannot wait as it is.
            why = f"it cannot be put off: {error}"
            return await self._replacement(
                entry, DeadLetter(delivery=delivery, reason=DeadReason.MALFORMED, detail=why)
            )
        if wait < SHORT:
            return Outgoing("", queue, queue, header, entry.body)
        return await self._delayed(queue, wait, header, entry.body)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See ``Broker.extend``: what was not lost with its channel is held."""
        self._check_open()
        entries = self._intake.held.entries
        if any(each.token in entries for each in deliveries):
            try:
                await self._intake.alive(_FRESH)
            except OperationalError:
                if self._intake.channel is not None:
                    raise
            else:
                await self._keeper.look_after([entries[e.token] for e in deliveries if e.token in entries])
        known = (self._intake.held.entries, self._ended, self._ending)
        return [each for each in deliveries if not any(each.token in tokens for tokens in known)]

    async def orphans(self, owner: str) -> Sequence[Delivery]:
        """See ``Broker.orphans``: the server has given back what the dead held."""
        self._check_open()
        return ()

    async def maintain(self) -> float:
        """See ``Broker.maintain``: delays, dead letters and what the dead held are the server's affair."""
        self._check_open()
        await self._intake.open()
        if not self._intake.held.entries:
            self._ended.clear()
        return _MAINTENANCE

    # -- looking -----------------------------------------------------------------------------------------------------

    async def depth(self, queues: Sequence[str]) -> Mapping[str, Depth]:
        """See ``Broker.depth``: ready ones of the server, scheduled and leased ones of this connection alone."""
        self._check_open()
        depths: dict[str, Depth] = {}
        for queue in queues:
            ready = await self._count(queue)
            entries = self._intake.held.entries.values()
            scheduled = self._intake.waiting(queue)
            leased = sum(entry.queue == queue for entry in entries)
            depths[queue] = Depth(ready=ready, scheduled=scheduled, leased=leased)
        return depths

    async def _count(self, queue: str) -> int:
        channel = await (await self._intake.wire()).channel()
        try:
            return int((await channel.ask(*passive(queue)))[1])
        except Closed as error:
            if error.code != NOT_FOUND:
                raise channel.closed or OperationalError(error.text) from None
            return 0
        finally:
            await channel.close()

    async def purge(self, queue: str) -> int:
        """See ``Broker.purge``: what is ready. What is delayed on the server stays."""
        self._check_open()
        wire = await self._intake.wire()
        channel = await wire.channel()
        try:
            return int((await channel.ask(m.QUEUE_PURGE, 0, queue, False))[0])
        except Closed as error:
            if error.code != NOT_FOUND:
                raise channel.closed or OperationalError(error.text) from None
            return 0
        finally:
            await channel.close()

    async def dead(self, *, limit: int = 100, queue: str | None = None) -> Sequence[DeadRecord]:
        """See ``Broker.dead``."""
        self._check_open()
        return await look(await self._intake.wire(), DeadFilter(queue=queue or ""), limit)

    # -- the bus -----------------------------------------------------------------------------------------------------

    async def emit(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.emit``."""
        self._check_open()
        await self._bus.emit(exchange, routing_key, payload, headers)

    def listen(self, exchange: str) -> AsyncIterator[tuple[Any, Mapping[str, Any]]]:
        """See ``Bus.listen``."""
        return self._bus.listen(exchange)

    async def reply(self, exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any]) -> None:
        """See ``Bus.reply``."""
        self._check_open()
        await self._bus.reply(exchange, routing_key, payload, headers)
