"""``rpc://`` for those who wait: one consumer on the reply queue of this process, on a thread of its own that starts
when somebody asks first, makes lost connections anew, and puts what comes into the mailbox.

One instance serves one process (``PerProcess``): after a fork there is another one, and another queue.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import NoReturn

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Connection, Line, monotonic
from celeriac.brokers.rabbitmq.frames import HEARTBEAT, ack
from celeriac.brokers.rabbitmq.layout import passive
from celeriac.brokers.rabbitmq.mailbox import Mailbox
from celeriac.brokers.rabbitmq.replying import addressee, declaring_replies, letter_of
from celeriac.exceptions import OperationalError
from celeriac.model.chord import NewChord
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, ReplyQueue

__all__ = ["ReplyReader"]

#: Records that come before the first of them is acknowledged.
_AHEAD = 1000
#: Seconds: one attempt to connect; the pause before the next, at first and at last; and for how long the server may be
#: away when the one who waits gave no time.
_REACH, _PAUSE_FIRST, _PAUSE_LAST, _GIVE_UP = 8.0, 0.05, 1.0, 30.0
#: Longest time without a look at the connection, in seconds.
_LOOK = 60.0
_FINAL = (b"SUCCESS", b"FAILURE", b"REVOKED")
_STATUS = re.compile(rb'[^"]{0,8}"status": ?"([^"]*)"')


def state_of(record: bytes) -> bytes:
    """The state in a record, as far as it can be told without its serializer: a final one, or nothing."""
    found = _STATUS.match(record)
    if found is not None:
        return found[1] if found[1] in _FINAL else b""
    return next((state for state in _FINAL if state in record[:256]), b"")


class ReplyReader:
    """See ``celeriac.ports.Reader``."""

    def __init__(self, options: AdapterOptions) -> None:
        self._addresses = parse("", options)
        self._replies = options.replies or ReplyQueue()
        self._mailbox = Mailbox(self._replies.expires)
        self._writing = Line(self._addresses)
        self._reading = Line(self._addresses, beats=True)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        #: The consumer is at work, and what had been there before it is in the mailbox.
        self._up = threading.Event()
        self._closing = threading.Event()
        #: Since when the server is away, and why.
        self._down: tuple[float, OperationalError] | None = None
        #: Attempts that have failed.
        self._failures = 0

    # -- what is asked

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """See ``Reader.get``. Raises ``NotImplementedError`` in a process that has sent nothing: results are read by
        the one that has."""
        found = self._mailbox.get(ids)
        if None not in found:
            return found
        self._attend()
        deadline, failures = monotonic() + timeout, self._failures
        while not self._up.wait(min(0.1, max(deadline - monotonic(), 0.0))):
            # Two attempts have failed meanwhile: the caller hears it now, and not at the end of its time.
            down, late = self._down, monotonic() >= deadline
            if down is not None and (late or self._failures > failures + 1):
                raise down[1]
            if late:
                raise OperationalError(f"RabbitMQ at {self._addresses[0].masked} did not answer in {timeout:g} s")
        return self._mailbox.get(ids)

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """See ``Reader.wait``. ``OperationalError`` when the server cannot be reached by the end of ``timeout``, or for
        30 s without one. Raises as ``get``."""
        if not ids:
            return None
        waiter = self._mailbox.enter(ids)
        try:
            if waiter.hit is None:
                self._attend()
            deadline = None if timeout is None else monotonic() + timeout
            while True:
                hit = waiter.wait(_GIVE_UP if deadline is None else deadline - monotonic())
                if hit is not None:
                    return hit
                down, now = self._down, monotonic()
                late = deadline is not None and now >= deadline
                if down is not None and (late or (deadline is None and now - down[0] > _GIVE_UP)):
                    raise down[1]
                if late:
                    return None
        finally:
            self._mailbox.leave(waiter)

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """See ``Reader.put``: to those who have sent the tasks. What nobody waits for goes nowhere, as in Celery."""
        letters = [letter_of(result, self._replies) for result in results if result.reply_to]
        if letters:
            deadline = monotonic() + timeout
            with self._writing.use(deadline) as connection:
                connection.publish([letter.frames(connection.frame_max) for letter in letters], deadline)

    def forget(self, ids: Sequence[str], *, timeout: float) -> None:
        """See ``Reader.forget``."""
        self._mailbox.forget(ids)

    def close(self) -> None:
        """Close the connections; a later call opens new ones. Records and queue stay."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._closing.set()
            connection = self._connection
            if connection is not None:
                connection.hang_up()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_REACH)
        self._writing.close()

    # -- what cannot be

    def open_chords(self, chords: Sequence[NewChord], *, timeout: float) -> None:
        """Raises ``NotImplementedError``."""
        _cannot("count the tasks of a chord")

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """Raises ``NotImplementedError``."""
        _cannot("count the tasks of a chord")

    def save_group(self, group: str, body: bytes, *, expires: float | None, timeout: float) -> None:
        """Raises ``NotImplementedError``."""
        _cannot("keep a GroupResult")

    def load_group(self, group: str, *, timeout: float) -> bytes | None:
        """Raises ``NotImplementedError``."""
        _cannot("keep a GroupResult")

    def drop_group(self, group: str, *, timeout: float) -> None:
        """Raises ``NotImplementedError``."""
        _cannot("keep a GroupResult")

    # -- the consumer

    def _attend(self) -> None:
        """Let the consumer be at work."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            return
        if not self._replies.used():
            raise NotImplementedError(
                "rpc:// brings results to the process that has sent the task, and this one has sent none: read them "
                "there, or set result_backend to a store, such as redis://"
            )
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._closing, self._down = threading.Event(), None
                self._up.clear()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._closing,), name="celeriac-replies", daemon=True
                )
                self._thread.start()

    def _serve(self, closing: threading.Event) -> None:
        pause, turn = _PAUSE_FIRST, 0
        while not closing.is_set():
            turn += 1
            try:
                with self._reading.use(monotonic() + _REACH) as connection:
                    self._connection = connection
                    self._consume(connection, turn)
                    self._down, pause = None, _PAUSE_FIRST
                    self._up.set()
                    self._listen(connection, closing)
            except OperationalError as error:
                if not closing.is_set():
                    self._down = (self._down or (monotonic(), error))[0], error
                    self._failures += 1
                    self._mailbox.wake()
            finally:
                self._up.clear()
                self._connection = None
            closing.wait(pause)
            pause = min(pause * 2, _PAUSE_LAST)
        self._reading.close()

    def _consume(self, connection: Connection, turn: int) -> None:
        """Begin, and take what is there already. A queue that is gone is made anew."""
        deadline = monotonic() + _REACH
        name = self._replies.name
        connection.cancelled = False
        connection.run(declaring_replies(self._replies), deadline)
        connection.ask((m.BASIC_QOS, 0, _AHEAD, False), deadline)
        # The server may not have noticed yet that our last connection is gone: the newest comes before it.
        arguments = {"x-priority": turn}
        connection.ask((m.BASIC_CONSUME, 0, name, "", False, False, False, False, arguments), deadline)
        # What is delivered before the answer was sent before it.
        while connection.ask(passive(name), deadline)[1]:
            self._take(connection)
        self._take(connection)

    def _listen(self, connection: Connection, closing: threading.Event) -> None:
        beat = connection.heartbeat
        heard = told = monotonic()
        while not closing.is_set() and not connection.cancelled:
            try:
                # Whatever comes in, the server's heartbeats above all: it has to hear of us, too.
                connection.hear(told + beat / 2 if beat else monotonic() + _LOOK)
                heard = monotonic()
            except TimeoutError:
                if beat and monotonic() - heard > 2 * beat:
                    raise
            if beat and monotonic() - told >= beat / 2:
                connection.send(HEARTBEAT, monotonic() + beat)
                told = monotonic()
            self._take(connection)

    def _take(self, connection: Connection) -> None:
        events, connection.delivered = connection.delivered, []
        for event in events:
            task_id, state = addressee(event), state_of(event.body)
            if task_id:
                self._mailbox.take(task_id, event.body, bool(state), state == b"SUCCESS")
        if events:
            tag = m.arguments(m.BASIC_DELIVER, events[-1].payload)[1]
            connection.send(ack(events[-1].channel, tag, True), monotonic() + _REACH)


def _cannot(what: str) -> NoReturn:
    raise NotImplementedError(
        f"rpc:// cannot {what}: it keeps nothing for anybody but the sender of a task; set result_backend to a store, "
        "such as redis://"
    )
