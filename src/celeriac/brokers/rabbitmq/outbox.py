"""Asynchronous publishing with confirms, for workers, over a connection of its own: an alarm of the server stops it and
nothing else.

Queues are declared before the first message to them. What was sent when an alarm began, or together with something that
no queue takes, is remembered: it is not sent a second time when the caller tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import Address
from celeriac.brokers.rabbitmq.confirms import Confirms, Parcel
from celeriac.brokers.rabbitmq.errors import Closed, alarmed, full, lost, refused, unroutable
from celeriac.brokers.rabbitmq.frames import Event
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.brokers.rabbitmq.wire import Channel, Wire, connect
from celeriac.exceptions import OperationalError

__all__ = ["Outbox", "run"]

T = TypeVar("T")

#: Seconds for the confirms of a batch; while there is an alarm, for its end.
_CONFIRM, _ALARM = 10.0, 2.0
#: Most messages that leave before their confirms are awaited.
_BATCH = 2000


async def run(wire: Wire, asking: Generator[tuple[Any, ...], Any, T]) -> T:
    """Ask what a generator wants asked, on a channel of its own. Raises ``OperationalError``."""
    channel = await wire.channel()
    try:
        ask = next(asking)
        while True:
            try:
                answer = await channel.ask(*ask)
            except Closed as error:
                ask = asking.throw(error)
                channel = await wire.channel()
            else:
                ask = asking.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    except Closed as error:
        raise refused(wire.address, error) from None
    finally:
        await channel.close()


async def _until_writable(wire: Wire) -> None:
    try:
        async with asyncio.timeout(_CONFIRM):
            await wire.writable.wait()
    except TimeoutError:
        if not wire.blocked:
            raise lost(wire.address, f"it has read nothing for {_CONFIRM:g} s", uncertain=True) from None


class Outbox:
    """``publish`` for one event loop. Closed by ``close``, opened by the next publish."""

    def __init__(self, addresses: tuple[Address, ...], layout: Layout) -> None:
        self._addresses = addresses
        self._layout = layout
        self._wire: Wire | None = None
        self._channel: Channel | None = None
        self._confirms = Confirms()
        #: The batch that is under way, or was last; and those of it that no queue took.
        self._parcel = self._confirms.expect(0)
        self._returned: list[Event] = []
        self._answered = asyncio.Event()
        self._lock = asyncio.Lock()
        self._connecting = asyncio.Lock()
        #: Queues and exchanges that were declared over this connection, and whatever else its user notes.
        self.declared: set[str] = set()
        #: What was sent when an alarm began, or of a call that has failed in another part.
        self._limbo: set[tuple[bytes, bytes]] = set()
        #: The part of it that was not confirmed then.
        self._doubtful: Parcel | None = None

    async def wire(self) -> Wire:
        """The connection. Raises ``OperationalError``."""
        async with self._connecting:
            if self._wire is None or self._wire.closed is not None:
                self._wire = None
                self.declared.clear()
                self._wire = await connect(self._addresses)
            return self._wire

    async def declare(self, name: str, asking: Generator[tuple[Any, ...], Any, None]) -> None:
        """Run a declaration unless that was done over this connection."""
        wire = await self.wire()
        if name not in self.declared:
            if wire.blocked:  # nothing is read there
                raise alarmed(wire.address, wire.blocked, uncertain=False)
            await run(wire, asking)
            self.declared.add(name)

    async def publish(self, letters: Sequence[Outgoing]) -> None:
        """Durable when it returns. Raises ``OperationalError``."""
        async with self._lock:
            await self._end_limbo(letters)
            todo = [letter for letter in letters if (letter.header, letter.body) not in self._limbo]
            for at in range(0, len(todo), _BATCH):
                try:
                    await self._batch(todo[at : at + _BATCH])
                except OperationalError as error:
                    error.uncertain = error.uncertain or at > 0
                    self._limbo.update((letter.header, letter.body) for letter in todo[:at])
                    raise
            self._limbo.clear()

    async def _open(self) -> Channel:
        wire = await self.wire()
        if wire.blocked:
            raise alarmed(wire.address, wire.blocked, uncertain=False)
        if self._channel is None or self._channel.closed is not None:
            self._confirms = Confirms()
            self._limbo.clear()
            self._channel = await wire.channel(self._hear, self._ended)
            try:
                await self._channel.ask(m.CONFIRM_SELECT, False)
            except Closed as error:
                raise refused(wire.address, error) from None
        return self._channel

    def _ended(self, error: OperationalError) -> None:
        """The channel is over. When that was the server's verdict, what was declared may be there no longer."""
        if self._channel is not None and self._channel.verdict is not None:
            self.declared.clear()
        self._answered.set()

    def _hear(self, event: Event) -> None:
        if event.number == m.BASIC_RETURN:
            self._returned.append(event)
        elif event.number in {m.BASIC_ACK, m.BASIC_NACK} and self._confirms.hear(event):
            self._answered.set()

    async def _batch(self, letters: Sequence[Outgoing]) -> None:
        channel = await self._open()
        for queue in {letter.queue for letter in letters if letter.queue} - self.declared:
            await self.declare(queue, self._layout.declaring(queue))
        await self._transmit(channel, letters)
        if self._parcel.refused:
            raise full(channel.wire.address, self._parcel.refused)
        if self._returned:
            await self._again(channel, letters)

    async def _again(self, channel: Channel, letters: Sequence[Outgoing]) -> None:
        """Their queue was deleted meanwhile: declare it, and send them once more."""
        back = {(event.header, event.body) for event in self._returned}
        again = [letter for letter in letters if (letter.header, letter.body) in back]
        # The others are sent, and are not a second time when the caller tries again.
        self._limbo.update({(letter.header, letter.body) for letter in letters} - back)
        for queue in {letter.queue for letter in again if letter.queue}:
            self.declared.discard(queue)
            await self.declare(queue, self._layout.declaring(queue))
        await self._transmit(channel, again)
        if self._returned:
            left = {(event.header, event.body) for event in self._returned}
            self._limbo.update(back - left)
            _, _, exchange, key = m.arguments(self._returned[0].number, self._returned[0].payload)
            raise unroutable(channel.wire.address, exchange, key, uncertain=len(left) < len(letters))

    async def _transmit(self, channel: Channel, letters: Sequence[Outgoing]) -> None:
        wire = channel.wire
        self._parcel, self._returned = self._confirms.expect(len(letters)), []
        self._answered.clear()
        try:
            for letter in letters:
                channel.send(letter.frames(wire.frame_max, channel.number))
                # During an alarm nothing is read there: what is left waits in memory.
                if not wire.writable.is_set() and not wire.blocked:
                    await _until_writable(wire)
        except BaseException:
            # Later confirms would be taken for those of what is announced and was not sent.
            wire.abort("a sending was broken off")
            raise
        await self._await_confirms(channel, letters)

    async def _await_confirms(self, channel: Channel, letters: Sequence[Outgoing]) -> None:
        wire = channel.wire
        wake = self._answered.set
        wire.on_blocked.add(wake)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            while self._parcel.left and channel.closed is None:
                left = begin + (_ALARM if wire.blocked else _CONFIRM) - loop.time()
                if left <= 0:
                    break
                self._answered.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._answered.wait()
                except TimeoutError:
                    pass
        finally:
            wire.on_blocked.discard(wake)
        if channel.closed is not None:
            channel.closed.uncertain = True
            raise channel.closed
        if not self._parcel.left:
            return
        if wire.blocked:
            self._limbo |= {(letter.header, letter.body) for letter in letters}
            self._doubtful = self._parcel
            raise alarmed(wire.address, wire.blocked, uncertain=True)
        wire.abort("no confirms")
        raise lost(wire.address, f"no confirms within {_CONFIRM:g} s", uncertain=True)

    async def _end_limbo(self, letters: Sequence[Outgoing]) -> None:
        """What was sent when an alarm began is confirmed first; what no queue took then is to be sent again."""
        if not self._limbo:
            return
        wire, channel = self._wire, self._channel
        if wire is None or channel is None or channel.closed is not None:
            self._limbo.clear()  # nobody knows: it is sent again
            return
        if wire.blocked:
            sent = any((letter.header, letter.body) in self._limbo for letter in letters)
            raise alarmed(wire.address, wire.blocked, uncertain=sent)
        await self._await_confirms(channel, [])
        if self._doubtful is not None and self._doubtful.refused:
            self._limbo.clear()  # nobody knows which
        self._doubtful = None
        self._limbo.difference_update((event.header, event.body) for event in self._returned)

    async def close(self) -> None:
        """Give the connection back. Idempotent."""
        wire, self._wire, self._channel = self._wire, None, None
        if wire is not None:
            await wire.close()
