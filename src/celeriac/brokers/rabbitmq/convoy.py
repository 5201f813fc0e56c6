"""Blocking publishing by many threads over one connection.

Whoever finds it free sends what all have put down, and waits for the confirms of all. So
sixteen threads cost one round trip, and a lone one waits for nobody.

Queues are declared before the first message to them on a connection. A message that no queue takes makes its queue be
declared anew and is sent once more; then it is an error.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import Address
from celeriac.brokers.rabbitmq.blocking import Connection, Line, failed, monotonic
from celeriac.brokers.rabbitmq.errors import Closed, alarmed, lost, refused, unroutable
from celeriac.brokers.rabbitmq.frames import Event
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.brokers.rabbitmq.replying import declaring_replies, drop_at_exit
from celeriac.exceptions import OperationalError
from celeriac.ports import ReplyQueue

__all__ = ["Convoy"]

#: Most bytes that leave in one go: behind them the confirms are awaited.
_BYTES = 4 * 1024 * 1024
#: A reply queue without an end is declared again after a quarter of so many seconds.
_AGAIN = 86400.0


class _Waiting:
    """What one thread wants sent. ``wake`` is released when it is done, or when it is to lead."""

    __slots__ = ("done", "error", "leads", "letters", "taken", "wake")

    def __init__(self, letters: Sequence[Outgoing]) -> None:
        self.letters = letters
        self.taken = False
        self.done = False
        self.leads = False
        self.error: BaseException | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class Convoy:
    """Thread-safe; survives forks."""

    def __init__(self, addresses: tuple[Address, ...], layout: Layout, replies: ReplyQueue | None = None) -> None:
        self._line = Line(addresses)
        self._layout = layout
        self._replies = replies
        #: When this process's reply queue is declared again, lest it expires.
        self._again_at = 0.0
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: list[_Waiting] = []
        #: Somebody is sending, and will wake the next.
        self._led = False

    def send(self, letters: Sequence[Outgoing], deadline: float) -> None:
        """Durable when it returns. Raises ``OperationalError``, ``uncertain`` when some may have been taken."""
        if self._pid != os.getpid():
            self._renew()  # the lock may have been held when we were forked, and what waited is the parent's
        mine = _Waiting(letters)
        with self._lock:
            self._queue.append(mine)
            mine.leads = not self._led
            self._led = True
        if not mine.leads and not mine.wake.acquire(timeout=max(deadline - monotonic(), 0.001)):
            self._withdraw(mine)
        if mine.leads:
            try:
                if not mine.done:
                    self._lead(deadline)
            finally:
                self._hand_over()
        if mine.error is not None:
            raise mine.error

    def _withdraw(self, mine: _Waiting) -> None:
        with self._lock:
            if mine.done or mine.leads:
                return
            if not mine.taken:
                self._queue.remove(mine)
            mine.error = lost(self._line.address, "no confirm in time", uncertain=mine.taken)

    def _hand_over(self) -> None:
        with self._lock:
            self._led = bool(self._queue)
            if self._queue:
                self._queue[0].leads = True
                self._queue[0].wake.release()

    def _lead(self, deadline: float) -> None:
        """Send everything that waits."""
        with self._lock:
            batch, self._queue = self._queue, []
            for each in batch:
                each.taken = True
        error: BaseException | None = None
        sent = False
        connection: Connection | None = None
        self._line.acquire(deadline)  # nobody else uses this line, but for close()
        try:
            connection = self._line.connection(deadline)
            for each in batch:
                self._declare(connection, each, deadline)
            good = [each for each in batch if each.error is None]
            if connection.blocked:
                self._await_room(connection, deadline)
            sent = True
            self._publish(connection, good, deadline)
        except Closed as closed:
            error = refused(self._line.address, closed)
            error.uncertain = sent
        except OperationalError as known:
            error = known
        except (OSError, ValueError) as broken:
            self._line.drop()
            assert connection is not None
            error = failed(connection, broken)
            error.uncertain = sent
        except BaseException as interrupt:
            self._line.drop()
            error = lost(self._line.address, repr(interrupt), uncertain=sent)
            raise
        finally:
            self._line.release()
            for each in batch:
                each.error = each.error or error
                each.done = True
                if not each.leads:
                    each.wake.release()

    @staticmethod
    def _await_room(connection: Connection, deadline: float) -> None:
        """While there is an alarm nothing is read there: wait, and say why, before anything is sent."""
        while connection.blocked:
            try:
                connection.await_deliveries(deadline)
            except TimeoutError:
                raise alarmed(connection.address, connection.blocked, uncertain=False) from None

    def _declare(self, connection: Connection, waiting: _Waiting, deadline: float) -> None:
        """The queues of a thread's messages; what cannot be declared is that thread's error alone."""
        for letter in waiting.letters:
            if letter.queue and letter.queue not in connection.declared:
                try:
                    connection.run(self._layout.declaring(letter.queue), deadline)
                except Closed as error:
                    waiting.error = refused(connection.address, error)
                    return
                connection.declared.add(letter.queue)
        if self._replies is not None and any(letter.reply_to == self._replies.name for letter in waiting.letters):
            self._declare_replies(connection, self._replies, deadline)

    def _declare_replies(self, connection: Connection, replies: ReplyQueue, deadline: float) -> None:
        """The queue to which results come has to be there before the first of them; that it is declared counts as its
        use. ``Closed`` is an error of all."""
        now = monotonic()
        if replies.name in connection.declared and now < self._again_at:
            return
        connection.run(declaring_replies(replies), deadline)
        connection.declared.add(replies.name)
        self._again_at = now + (replies.expires or _AGAIN) / 4
        drop_at_exit(self._line.addresses, replies.name)

    def _publish(self, connection: Connection, batch: Sequence[_Waiting], deadline: float) -> None:
        frames: list[bytes] = []
        parts: list[list[bytes]] = [frames]
        size = 0
        for each in batch:
            for letter in each.letters:
                data = letter.frames(connection.frame_max)
                if size and size + len(data) > _BYTES:
                    frames, size = [], 0
                    parts.append(frames)
                frames.append(data)
                size += len(data)
        refusals = 0
        returned: list[Event] = []
        for part in parts:
            if part:
                sent = connection.publish(part, deadline)
                refusals += sent.refused
                returned += sent
        if returned:
            self._again(connection, batch, returned, deadline)
        if refusals:
            error = OperationalError(
                f"RabbitMQ at {connection.address.masked} refused {refusals} messages: a queue is full (x-max-length "
                "with reject-publish), or it failed inside; see the server's log"
            )
            error.uncertain = True
            for each in batch:
                each.error = each.error or error

    def _again(
        self, connection: Connection, batch: Sequence[_Waiting], returned: Sequence[Event], deadline: float
    ) -> None:
        """Their queue was deleted meanwhile: declare it, and send them once more."""
        back = {event.header + event.body for event in returned}
        frames, owners = [], {}
        for each in batch:
            for letter in each.letters:
                if letter.header + letter.body in back:
                    connection.declared.discard(letter.queue)
                    owners[letter.header + letter.body] = each
                    frames.append(letter.frames(connection.frame_max))
            self._declare(connection, each, deadline)
        for event in connection.publish(frames, deadline):
            _, _, exchange, key = m.arguments(event.number, event.payload)
            owner = owners.get(event.header + event.body)
            if owner is not None:
                owner.error = owner.error or unroutable(connection.address, exchange, key)

    def close(self) -> None:
        """Give the connection back; the next send makes another."""
        self._line.close()
