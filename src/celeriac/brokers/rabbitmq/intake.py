"""What a worker takes in: one connection and one channel with its consumers, and what they have pushed.

Consumers live as long as claims follow each other: their prefetch follows what is claimed (``tune``), and soon after
the last claim they are cancelled and what nobody has claimed goes back. A claim that does not wait asks for messages
one by one (basic.get), which takes exactly what it returns. Knows nothing of how deliveries end (``queues.py``).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from celeriac.brokers.rabbitmq import delays
from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import Address
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.frames import Event
from celeriac.brokers.rabbitmq.holding import Consumer, Entry, Held
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.messages import HELD, due_of, given_back_often, of_content
from celeriac.brokers.rabbitmq.outbox import run
from celeriac.brokers.rabbitmq.returned import Returned
from celeriac.brokers.rabbitmq.wire import Channel, Wire, connect
from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.ports import AdapterOptions

__all__ = ["SHORT", "Intake"]

#: Seconds after the last claim until its consumers are cancelled, while nothing of what was lent ends: whoever ends
#: something will claim again soon.
LINGER = 0.1
#: What is due within so many seconds waits here, under its lease: the server delays by whole seconds.
SHORT = 1.0
#: Claims up to this many get exactly as much as they ask for; larger ones up to twice.
_EXACT = 4
#: Most messages that are asked for in one go.
_GETS = 100
#: Generations of all channels of this process: no token is ever used again.
_generations = count(1)


class Intake:
    """For one event loop."""

    def __init__(self, addresses: tuple[Address, ...], options: AdapterOptions, layout: Layout) -> None:
        self._addresses = addresses
        self._layout = layout
        self._owner = options.owner
        self._lifeline = options.lifeline
        self._zone = ZoneInfo(options.zone)
        self._max_bytes = options.max_message_bytes
        self._returned = Returned(addresses[0].server[1])
        self._connecting = asyncio.Lock()
        self._wire: Wire | None = None
        self.channel: Channel | None = None
        #: Nobody may connect again.
        self.closed = False
        self.held = Held(self._owner, 0)
        self._declared: set[str] = set()
        self._consumers: dict[str, Consumer] = {}
        #: All that may still send something, by their tags.
        self._by_tag: dict[str, Consumer] = {}
        self._tags = count(1)
        self._ready: deque[Entry] = deque()
        self._later: list[Entry] = []
        #: Limits of the claims that wait.
        self._waiting: list[int] = []
        #: Claims that are under way, also those that do not wait.
        self._claims = 0
        #: When something that was lent has ended, monotonic.
        self._ended_at = 0.0
        #: The queues that were asked for a message, in the order of the questions.
        self._getting: deque[str] = deque()
        self._news = asyncio.Event()
        self._lost: OperationalError | None = None
        self._withdrawing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Hears of what comes from the queue in which long tasks are kept (``keeping.py``).
        self.on_kept: Callable[[Event, int, bool], None] = lambda event, number, redelivered: None
        #: Hears why a channel was closed.
        self.on_closed: Callable[[Closed], None] = lambda verdict: None

    # -- connection

    async def open(self) -> Channel:
        """The channel. Raises ``OperationalError``."""
        async with self._connecting:
            channel = self.channel
            if channel is not None and channel.closed is None:
                return channel
            if self.closed:
                raise OperationalError(f"the broker {self._addresses[0].masked} is closed: call open() first")
            if self._wire is None or self._wire.closed is not None:
                self._wire = await connect(self._addresses)
                self._declared.clear()
                if self._lifeline is not None:
                    await self._lifeline(self._wire.fileno)
            channel = await self._wire.channel(self._hear, self._on_closed)
            if channel.closed is not None:
                raise channel.closed
            self.held, self._lost, self.channel = Held(self._owner, next(_generations)), None, channel
            return channel

    def _on_closed(self, error: OperationalError) -> None:
        """The channel is gone, and with it everything that was held over it."""
        channel, self.channel = self.channel, None
        if channel is not None and channel.verdict is not None:
            self.on_closed(channel.verdict)
        self._lost = error
        self.held = Held(self._owner, 0)
        self._ready.clear()
        self._later.clear()
        self._consumers.clear()
        self._by_tag.clear()
        self._getting.clear()
        self._declared.clear()
        self._news.set()

    async def close(self) -> None:
        """Give the connection back, and with it what was held. Idempotent."""
        self.closed = True
        wire, self._wire = self._wire, None
        if self._timer is not None:
            self._timer.cancel()
        if self._withdrawing is not None:
            self._withdrawing.cancel()
        if wire is not None:
            await wire.close()

    async def declare(self, queues: Sequence[str]) -> None:
        """Make sure that queues exist, once a channel."""
        for queue in queues:
            if queue not in self._declared:
                await self.open()
                assert self._wire is not None
                await run(self._wire, self._declaring(queue))
                self._declared.add(queue)

    def _declaring(self, queue: str) -> Generator[tuple[Any, ...], Any, None]:
        """A queue that was deleted has lost, too, what leads into it what was delayed."""
        yield from self._layout.declaring(queue)
        yield from delays.leading_again(queue)

    async def wire(self) -> Wire:
        """The connection, for channels of others: it is never blocked. Raises ``OperationalError``."""
        await self.open()
        assert self._wire is not None
        return self._wire

    def waiting(self, queue: str) -> int:
        """How many of a queue wait here for their moment."""
        return sum(entry.queue == queue for entry in self._later)

    async def alive(self, fresh: float = 0.0) -> None:
        """Make sure that the server still knows the channel: by its answer, or by one it gave ``fresh`` seconds ago.
        Raises ``OperationalError``."""
        channel = self.channel
        if channel is None:
            raise self._lost or OperationalError("the channel is closed")
        if channel.wire.loop.time() - channel.wire.heard > fresh:
            try:
                await channel.ask(m.CHANNEL_FLOW, True)
            except Closed:
                raise channel.closed or OperationalError("the channel is closed") from None

    # -- what comes in

    def _hear(self, event: Event) -> None:
        if event.number == m.BASIC_DELIVER:
            tag, number, redelivered, exchange, key = m.arguments(event.number, event.payload)
            consumer = self._by_tag.get(tag)
            if consumer is None:
                # Nobody takes it: it goes back at once, or an acknowledgement of all up to a later one would end it.
                assert self.channel is not None
                self.channel.send(m.method(self.channel.number, m.BASIC_NACK, number, False, True))
            elif consumer.queue.startswith(HELD):
                self.on_kept(event, number, redelivered)
            else:
                self._take_in(self._entry(event, number, consumer.queue, redelivered, exchange, key, consumer))
                self._news.set()
        elif event.number == m.BASIC_GET_OK:
            number, redelivered, exchange, key, _ = m.arguments(event.number, event.payload)
            self._take_in(self._entry(event, number, self._getting.popleft(), redelivered, exchange, key))
        elif event.number == m.BASIC_GET_EMPTY:
            self._getting.popleft()
        elif event.number == m.BASIC_CANCEL:
            # The queue was deleted, or its node is gone: it is declared anew.
            gone = self._by_tag.pop(m.arguments(event.number, event.payload)[0], None)
            if gone is not None:
                self._consumers.pop(gone.queue, None)
                self._declared.discard(gone.queue)
                self._news.set()

    def _entry(
        self,
        event: Event,
        number: int,
        queue: str,
        redelivered: bool,
        exchange: str,
        key: str,
        consumer: Consumer | None = None,
    ) -> Entry:
        delivery = of_content(
            event.header,
            event.body,
            token="",
            queue=queue,
            redelivered=redelivered,
            exchange=exchange,
            routing_key=key,
            zone=self._zone,
            max_bytes=self._max_bytes,
        )
        if redelivered:
            delivery = self._returned.look(delivery)
        entry = Entry(number, queue, event.header, event.body, delivery, consumer)
        entry.since = time.monotonic()
        entry.due = due_of(delivery)
        entry.copies = redelivered and given_back_often(event.header)
        self.held.add(entry)
        return entry

    def _take_in(self, entry: Entry) -> None:
        """Ready, or soon."""
        if 0 < entry.due - time.time() <= SHORT:
            self.keep(entry)
        else:
            self._ready.append(entry)

    def keep(self, entry: Entry) -> None:
        """Due within a moment: until then it waits here. Without a claim it goes back then."""
        heapq.heappush(self._later, entry)
        self._linger()

    def _ripen(self) -> float | None:
        """What is due now is ready; returns the seconds until the next is."""
        now = time.time()
        while self._later and self._later[0].due <= now:
            self._ready.append(heapq.heappop(self._later))
        return self._later[0].due - now if self._later else None

    def _lend(self, limit: int) -> list[Delivery]:
        """Up to so many of what is ready. Whoever may have killed a node is lent alone."""
        held = self.held
        lent: list[Delivery] = []
        while self._ready and len(lent) < limit:
            suspect = self._ready[0].delivery.marks.suspect
            if suspect and lent:
                break
            entry = self._ready.popleft()
            token = held.token(entry)
            entry.delivery = _under(entry.delivery, token)
            held.entries[token] = entry
            lent.append(entry.delivery)
            if suspect:
                break
        return lent

    # -- claiming

    async def claim(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Delivery]:
        """See ``Broker.claim``."""
        if limit <= 0 or not queues:
            await self.open()
            return ()
        await self.open()
        await self.declare(queues)
        self._claims += 1
        try:
            return await (self._get(queues, limit) if wait <= 0 else self._push(queues, limit, wait))
        except asyncio.CancelledError:
            if self._claims == 1:
                asyncio.get_running_loop().call_soon(self._begin_withdrawal)
            raise
        finally:
            self._claims -= 1
            self._linger()

    async def _push(self, queues: Sequence[str], limit: int, wait: float) -> Sequence[Delivery]:
        """What the server pushes, as soon as there is something."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        self._waiting.append(limit)
        try:
            while True:
                next_due = self._ripen()
                if self._lost is None:
                    self._tune(queues, sum(self._waiting))
                    lent = self._lend(limit)
                    if lent:
                        return lent
                left = deadline - loop.time()
                if self._lost is not None:
                    raise self._lost
                if left <= 0:
                    return ()
                await self._wait(left if next_due is None else min(left, max(next_due, 0.0)))
                if self._lost is None:
                    await self.declare(queues)
        finally:
            self._waiting.remove(limit)

    async def _wait(self, seconds: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
        else:
            await asyncio.sleep(0)  # what came in the same breath is read

    async def _get(self, queues: Sequence[str], limit: int) -> Sequence[Delivery]:
        """Exactly what is there, without a consumer that may be sent more."""
        await self._withdraw(back=False)
        channel = await self.open()
        self._ripen()
        lent = self._lend(limit)
        for queue in queues:
            empty = False
            while not empty and len(lent) < limit and not (lent and lent[-1].marks.suspect):
                calls = [self._ask_for(channel, queue) for _ in range(min(limit - len(lent), _GETS))]
                for call in calls:
                    empty = (await self._answer(channel, call)).number == m.BASIC_GET_EMPTY
                lent += self._lend(limit - len(lent))
        return lent

    def _ask_for(self, channel: Channel, queue: str) -> asyncio.Future[Event]:
        """One message; ``_hear`` takes it in."""
        answer = channel.call(m.BASIC_GET, 0, queue, False)
        answer.add_done_callback(_heard)
        self._getting.append(queue)
        return answer

    async def _answer(self, channel: Channel, call: asyncio.Future[Event]) -> Event:
        try:
            return await channel.wire.within(call)
        except Closed:
            raise channel.closed or OperationalError("the channel is closed") from None

    # -- consumers

    def _tune(self, queues: Sequence[str], limit: int) -> None:
        """Let each queue push what is missing, and not much more."""
        want = limit - len(self._ready)
        for queue in [name for name, consumer in self._consumers.items() if name not in queues and consumer.began]:
            self._cancel(queue)
        if want <= 0:
            return
        for queue in queues:
            consumer = self._consumers.get(queue)
            if consumer is None:
                self.consume(queue, _ample(want))
                continue
            if not consumer.began:
                continue  # looked at again when it has
            room, ample = consumer.room, _ample(want)
            if room < (want if want <= _EXACT else want // 2) or room > max(ample, _ample(limit)):
                self._cancel(queue)
                self.consume(queue, ample)

    def consume(self, queue: str, prefetch: int) -> None:
        """Subscribe; 0: to as many as there are."""
        channel = self.channel
        assert channel is not None
        consumer = Consumer(f"celeriac-{next(self._tags)}", queue, prefetch)
        self._by_tag[consumer.tag] = consumer
        if not queue.startswith(HELD):
            self._consumers[queue] = consumer
        arguments = dict(self._layout.of(queue).consumer_arguments)
        channel.call(m.BASIC_QOS, 0, min(prefetch, 65535), False).add_done_callback(_heard)
        answer = channel.call(m.BASIC_CONSUME, 0, queue, consumer.tag, False, False, False, False, arguments)
        answer.add_done_callback(_heard)
        answer.add_done_callback(lambda _: self._began(consumer))

    def consuming(self, queue: str) -> bool:
        """Whether it is subscribed to."""
        return any(consumer.queue == queue for consumer in self._by_tag.values())

    def _began(self, consumer: Consumer) -> None:
        consumer.began = True
        self._news.set()

    def _cancel(self, queue: str) -> asyncio.Future[Event] | None:
        """No more from a queue. Returns what is answered when nothing more of it can come: messages may be on their way
        even when the server has said that it is cancelled."""
        consumer = self._consumers.pop(queue, None)
        channel = self.channel
        if consumer is None or channel is None:
            return None
        channel.call(m.BASIC_CANCEL, consumer.tag, False).add_done_callback(_heard)
        answer = channel.call(m.CHANNEL_FLOW, True)
        answer.add_done_callback(_heard)
        answer.add_done_callback(lambda _: self._by_tag.pop(consumer.tag, None))
        return answer

    def _linger(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._claims:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._begin_withdrawal)

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """They have ended. Raises ``OperationalError``."""
        channel = self.channel
        if entries and channel is not None:
            self._ended_at = channel.wire.loop.time()
            channel.send(self.held.acks(channel.number, entries))

    def _begin_withdrawal(self) -> None:
        under_way = self._withdrawing is not None and not self._withdrawing.done()
        if under_way or self._ended_at + LINGER > asyncio.get_running_loop().time():
            self._linger()
        else:
            self._withdrawing = asyncio.get_running_loop().create_task(self._quietly_withdraw())

    async def _quietly_withdraw(self) -> None:
        if self._claims:
            return  # somebody claims again
        try:
            await self._withdraw(back=True)
        except OperationalError:
            pass  # the next claim meets it too

    async def _withdraw(self, *, back: bool) -> None:
        """Cancel all consumers; then give ``back`` what nobody has claimed, unless somebody does so meanwhile."""
        channel = self.channel
        if channel is not None and not all(consumer.began for consumer in self._consumers.values()):
            await self.alive()  # its answer comes behind theirs
        answers = [self._cancel(queue) for queue, consumer in tuple(self._consumers.items()) if consumer.began]
        for answer in answers:
            if answer is not None and channel is not None:
                await self._answer(channel, answer)
        if not back or self._claims or channel is None or channel is not self.channel:
            return
        now = time.time()
        left = [*self._ready, *(entry for entry in self._later if entry.due <= now)]
        self._later = [entry for entry in self._later if entry.due > now]
        heapq.heapify(self._later)
        self._ready.clear()
        if left:
            self.give_back(left)
        if self._later:
            # They wait here, and go back when nobody comes for them.
            delay = max(self._later[0].due - now, 0.0) + LINGER
            self._timer = asyncio.get_running_loop().call_later(delay, self._begin_withdrawal)

    def give_back(self, entries: Sequence[Entry]) -> None:
        """To where they were. Raises ``OperationalError``."""
        channel = self.channel
        if channel is None:
            return
        for entry in entries:
            self._returned.note(entry.delivery)
        frames = self.held.nacks(channel.number, entries)
        if frames:
            channel.send(frames)


def _ample(want: int) -> int:
    """The prefetch for so many that are wanted: what follows comes while they are run."""
    return want if want <= _EXACT else 2 * want


def _heard(answer: asyncio.Future[Any]) -> None:
    """Whatever went wrong is told by the end of the channel."""
    if not answer.cancelled():
        answer.exception()


def _under(delivery: Delivery, token: str) -> Delivery:
    return Delivery(
        message=delivery.message,
        token=token,
        queue=delivery.queue,
        raw=delivery.raw,
        redelivered=delivery.redelivered,
        returned=delivery.returned,
        marks=delivery.marks,
    )
