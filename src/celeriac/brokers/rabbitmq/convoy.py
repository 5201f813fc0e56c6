"""Blocking publishing by many threads over one connection.

Each thread writes its messages as soon as it has made them, while those of others are confirmed; one of those who wait
reads the confirms for all. So the server is never idle while there is something to send, answers many with one
confirm, and a lone thread waits for nobody.

A connection is made, and queues are declared, by one thread while nothing is under way. Queues are declared before the
first message to them on a connection. A message that no queue takes makes its queue be declared anew and is sent once
more; then it is an error.

The handler of a signal may raise at any line (KeyboardInterrupt, a soft limit in a task that sends). So what a thread
is to the others stands in ``_Waiting`` and is taken back by ``_leave``, which may be called twice; locks are taken by
``with`` alone; and a connection is hung up unless a message is written as a whole.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import REPLY_TIMEOUT, Address
from celeriac.brokers.rabbitmq.blocking import Connection, Line, failed, monotonic
from celeriac.brokers.rabbitmq.confirms import Parcel
from celeriac.brokers.rabbitmq.errors import Closed, alarmed, full, lost, refused, unroutable
from celeriac.brokers.rabbitmq.frames import Event
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.outgoing import Outgoing
from celeriac.brokers.rabbitmq.replying import declaring_replies, drop_at_exit
from celeriac.exceptions import OperationalError
from celeriac.ports import ReplyQueue

__all__ = ["Convoy"]

#: Bytes after which what is encoded leaves, while the rest is encoded.
_PARCEL = 128 * 1024
#: A reply queue without an end is declared again after a quarter of so many seconds.
_AGAIN = 86400.0


class _Waiting:
    """What one thread wants sent. ``wake`` is released once: when it is done, or when it is to read for all."""

    __slots__ = ("_contents", "error", "flight", "left", "letters", "reads", "refused", "returned", "since", "wake")

    def __init__(self, letters: Sequence[Outgoing]) -> None:
        self.letters = letters
        self._contents: set[tuple[bytes, bytes]] | None = None
        #: In which it is aboard.
        self.flight: _Flight | None = None
        #: When the last of them was written.
        self.since = 0.0
        #: Parcels that are not confirmed, and one more while there are some to come.
        self.left = 1
        self.refused = 0
        #: Messages that no queue took, as they came back.
        self.returned: list[Event] = []
        self.reads = False
        self.error: BaseException | None = None
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def done(self) -> bool:
        return not self.left or self.error is not None

    def wrote(self, event: Event) -> bool:
        """Whether a message that came back may be one of these. Of thousands all may come back: looked up."""
        if self._contents is None:
            self._contents = {(letter.header, letter.body) for letter in self.letters}
        return (event.header, event.body) in self._contents


class _Flight:
    """A connection, from the first message of one thread until nobody waits for a confirm."""

    __slots__ = ("aboard", "boarding", "connection", "out", "writer")

    def __init__(self, connection: Connection, first: _Waiting) -> None:
        self.connection = connection
        self.aboard: dict[_Waiting, None] = {first: None}
        #: Others may join.
        self.boarding = True
        #: What is to be written, by whoever finds that nobody writes.
        self.out: list[bytes] = []
        self.writer: _Waiting | None = None


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
        #: Who has the connection to himself, and makes it ready; and the flight that begins then.
        self._alone: _Waiting | None = None
        self._flight: _Flight | None = None
        #: Of those who wait for one of the two to end or to change.
        self._bells: list[threading.Lock] = []
        #: The connection is to be closed when nobody uses it.
        self._closing = False

    def _of_this_process(self) -> None:
        self._line.of_this_process()
        if self._pid != os.getpid():
            self._renew()  # the lock may have been held when we were forked, and what waited is the parent's

    def send(self, letters: Sequence[Outgoing], deadline: float) -> None:
        """Durable when it returns. Raises ``OperationalError``, ``uncertain`` when some may have been taken."""
        self._of_this_process()
        returned = self._sent(letters, deadline, anew=False)
        if returned:
            back = {event.header + event.body for event in returned}
            again = [letter for letter in letters if letter.header + letter.body in back]
            try:
                left = self._sent(again, deadline, anew=True)
            except OperationalError as error:
                error.uncertain = error.uncertain or len(again) < len(letters)
                raise
            if left:
                _, _, exchange, key = m.arguments(left[0].number, left[0].payload)
                # The others are sent, and must not be a second time.
                raise unroutable(self._line.address, exchange, key, uncertain=len(left) < len(letters))

    def _sent(self, letters: Sequence[Outgoing], deadline: float, anew: bool) -> Sequence[Event]:
        """Send them; returns those that no queue took. ``anew``: declare their queues first."""
        mine = _Waiting(letters)
        try:
            flight = self._join(mine, deadline, anew) or self._start(mine, deadline, anew)
            self._write(flight, mine, deadline)
            while not mine.done:
                if mine.reads:
                    self._read(flight, mine, deadline)
                elif not mine.wake.acquire(timeout=max(deadline - monotonic(), 0.001)):
                    self._withdraw(flight, mine)
        finally:
            try:
                self._leave(mine)
            except BaseException:
                self._leave(mine)  # somebody's signal came in between
                raise
        if mine.error is not None:
            raise mine.error
        if mine.refused:
            raise full(flight.connection.address, mine.refused)
        return mine.returned

    # ------------------------------------------------------------ the connection, for one or for all

    def _join(self, mine: _Waiting, deadline: float, anew: bool) -> _Flight | None:
        """The flight that is under way, or None: the connection is ours alone."""
        while True:
            with self._lock:
                flight = self._flight
                if flight is None and self._alone is None:
                    self._alone = mine
                    return None
                if flight is not None and flight.boarding:
                    if not anew and self._fits(flight.connection, mine):
                        mine.flight = flight
                        flight.aboard[mine] = None
                        return flight
                    flight.boarding = False  # those who are under way come to their end, then it is our turn
                bell = threading.Lock()
                bell.acquire()
                self._bells.append(bell)
            if not bell.acquire(timeout=max(deadline - monotonic(), 0.0)):
                if flight is not None and flight.connection.blocked:
                    raise alarmed(flight.connection.address, flight.connection.blocked, uncertain=False)
                raise lost(self._line.address, "others are using the connection, and it took too long")

    def _start(self, mine: _Waiting, deadline: float, anew: bool) -> _Flight:
        """Make the connection ready, as its only user; the others may join then."""
        flight = _Flight(self._ready(mine, deadline, anew), mine)
        with self._lock:
            flight.boarding = not self._closing
            mine.reads, mine.flight = True, flight
            self._flight, self._alone = flight, None
            self._ring()
        return flight

    def _ring(self) -> None:
        """Let those who wait look again."""
        for bell in self._bells:
            if bell.locked():
                bell.release()
        self._bells.clear()

    def _ready(self, mine: _Waiting, deadline: float, anew: bool) -> Connection:
        connection = self._line.connection(deadline)
        try:
            try:
                self._prepare(connection, mine, deadline, anew)
            except Closed as closed:
                raise refused(connection.address, closed) from None
            except (OSError, ValueError) as broken:
                self._line.drop()
                error = failed(connection, broken)
                error.uncertain = False
                raise error from None
        except OperationalError:
            raise
        except BaseException:
            self._line.drop()  # somebody's signal: an answer may be under way
            raise
        return connection

    def _prepare(self, connection: Connection, mine: _Waiting, deadline: float, anew: bool) -> None:
        if anew:
            connection.declared.difference_update(letter.queue for letter in mine.letters)
        for queue in dict.fromkeys(letter.queue for letter in mine.letters):
            if queue and queue not in connection.declared:
                connection.run(self._layout.declaring(queue), deadline)
                connection.declared.add(queue)
        if self._replies is not None and self._brings_replies(mine):
            self._declare_replies(connection, self._replies, deadline)
        connection.ready(deadline)
        self._await_room(connection, deadline)
        connection.news()  # of those who have given up

    @staticmethod
    def _await_room(connection: Connection, deadline: float) -> None:
        """While there is an alarm nothing is read there: wait, and say why, before anything is sent."""
        while connection.blocked:
            try:
                connection.hear(deadline)
            except TimeoutError:
                raise alarmed(connection.address, connection.blocked, uncertain=False) from None

    def _fits(self, connection: Connection, mine: _Waiting) -> bool:
        """It takes messages, and all that they need was declared."""
        if connection.blocked:
            return False
        declared = connection.declared
        for letter in mine.letters:
            if letter.queue and letter.queue not in declared:
                return False
        return self._replies is None or not self._brings_replies(mine) or self._knows_replies(connection)

    def _brings_replies(self, mine: _Waiting) -> bool:
        name = self._replies.name if self._replies is not None else ""
        return any(letter.reply_to == name for letter in mine.letters)

    def _knows_replies(self, connection: Connection) -> bool:
        assert self._replies is not None
        return self._replies.name in connection.declared and monotonic() < self._again_at

    def _declare_replies(self, connection: Connection, replies: ReplyQueue, deadline: float) -> None:
        """The queue to which results come has to be there before the first of them; that it is declared counts as its
        use."""
        if self._knows_replies(connection):
            return
        connection.run(declaring_replies(replies), deadline)
        connection.declared.add(replies.name)
        self._again_at = monotonic() + (replies.expires or _AGAIN) / 4
        drop_at_exit(self._line.addresses, replies.name)

    # ------------------------------------------------------------ under way

    def _write(self, flight: _Flight, mine: _Waiting, deadline: float) -> None:
        """Put down all messages in their order, and write what nobody else writes."""
        frame_max = flight.connection.frame_max
        frames: list[bytes] = []
        size = 0
        for letter in mine.letters:
            data = letter.frames(frame_max)
            frames.append(data)
            size += len(data)
            if size >= _PARCEL:
                self._put(flight, mine, frames, deadline)
                frames, size = [], 0
                if mine.done:
                    return  # the connection was lost
                if mine.reads:
                    self._read(flight, mine, None)
        if frames:
            self._put(flight, mine, frames, deadline)
        with self._lock:
            mine.left -= 1
            mine.since = monotonic()

    def _put(self, flight: _Flight, mine: _Waiting, frames: list[bytes], deadline: float) -> None:
        connection = flight.connection
        try:
            try:
                with self._lock:
                    mine.left += 1
                    connection.expect(len(frames), mine)
                    flight.out += frames
                    data = self._next(flight, mine)
                while data:
                    connection.send(data, deadline)
                    with self._lock:
                        data = self._next(flight, mine)
            except (OSError, ValueError):
                connection.hang_up()  # whoever reads tells all
        except BaseException:
            # Somebody's signal: what was counted may not be written, and then each confirm would be another's.
            connection.hang_up()
            raise

    @staticmethod
    def _next(flight: _Flight, mine: _Waiting) -> bytes:
        """What is ours to write now: nothing where another one writes."""
        if flight.writer is not None and flight.writer is not mine:
            return b""
        flight.writer = mine if flight.out else None
        data = b"".join(flight.out)
        flight.out.clear()
        return data

    def _read(self, flight: _Flight, mine: _Waiting, deadline: float | None) -> None:
        """Take in what comes, for all; without a deadline what is there already."""
        connection = flight.connection
        try:
            try:
                if deadline is None:
                    connection.look()
                else:
                    connection.hear(deadline)
                parcels, returned = connection.news()
                with self._lock:
                    self._note(flight, parcels, returned)
            except TimeoutError as silence:
                if connection.heard > mine.since or self._may_answer(flight, mine):
                    mine.error = _late(connection)  # the connection is good, and others may have more time
                else:
                    self._lose(flight, failed(connection, silence))
            except Closed as closed:
                error = refused(connection.address, closed)
                error.uncertain = True
                self._lose(flight, error)
            except (OSError, ValueError) as broken:
                self._lose(flight, failed(connection, broken))
        except BaseException as interrupt:
            self._lose(flight, lost(connection.address, repr(interrupt), uncertain=True))
            raise

    def _may_answer(self, flight: _Flight, mine: _Waiting) -> bool:
        """Others wait, too, and the server has not owed an answer for so long that it must be given up."""
        with self._lock:
            aboard = [each for each in flight.aboard if each is mine or not each.done]
        written = min((each.since for each in aboard if each.since), default=0.0)
        return len(aboard) > 1 and monotonic() - max(flight.connection.heard, written) < REPLY_TIMEOUT

    @staticmethod
    def _note(flight: _Flight, parcels: Iterable[Parcel], returned: Iterable[Event]) -> None:
        for event in returned:
            for each in flight.aboard:
                if each.wrote(event):
                    each.returned.append(event)
                    break
        for parcel in parcels:
            owner = parcel.sender
            if isinstance(owner, _Waiting) and not owner.error:
                owner.left -= 1
                owner.refused += parcel.refused
                if not owner.left and not owner.reads:
                    owner.wake.release()

    def _withdraw(self, flight: _Flight, mine: _Waiting) -> None:
        """Our time is over, unless it is just now that we are done, or are to read."""
        with self._lock:
            if not mine.done and not mine.reads:
                mine.error = _late(flight.connection)

    def _lose(self, flight: _Flight, error: OperationalError) -> None:
        """The connection is no longer any good: an error of all who are under way. Called by the one who reads, and
        again if he is interrupted."""
        self._line.drop()
        with self._lock:
            flight.boarding = False
            for each in flight.aboard:
                if not each.done:
                    each.error = error
                if not each.reads and each.wake.locked():
                    each.wake.release()

    def _leave(self, mine: _Waiting) -> None:
        """Whatever we were to the others, we are no more. If it was we who read, another one does now; without one the
        flight is over. Whoever is interrupted here calls it again."""
        with self._lock:
            flight = mine.flight
            if flight is not None:
                flight.aboard.pop(mine, None)
                if not mine.reads:
                    return
                for each in flight.aboard:
                    if not each.done:
                        if not each.reads:
                            each.reads = True
                            each.wake.release()
                        return
            if flight is self._flight and self._alone in (None, mine):
                if self._closing:
                    self._line.drop()
                self._ring()  # they look when we are out of here
                self._flight, self._alone, self._closing = None, None, False

    def close(self) -> None:
        """Give the connection back, as soon as nobody is sending; the next send makes another."""
        self._of_this_process()
        with self._lock:
            self._closing = self._flight is not None or self._alone is not None
            if self._flight is not None:
                self._flight.boarding = False
            if not self._closing:
                self._line.drop()


def _late(connection: Connection) -> OperationalError:
    """What to raise when one's time is over and that of others is not."""
    if connection.blocked:
        return alarmed(connection.address, connection.blocked, uncertain=True)
    return lost(connection.address, "no confirm in time", uncertain=True)
