"""Blocking connections with a deadline, and the pool of them that producers share.

Safe in threads (a connection is used by one at a time), after forks (a child forgets its parent's connections without
a word to the server) and in greenlets (psycopg waits as gevent does). A stale pooled connection is noticed before
anything is sent, and replaced.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from celeriac.brokers.postgres import schema
from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.errors import is_transient, lost, refused, silent
from celeriac.brokers.postgres.statements import calls
from celeriac.exceptions import OperationalError

__all__ = ["Desk", "Pool"]

T = TypeVar("T")
Row = tuple[Any, ...]
monotonic = time.monotonic
#: Tries of a transaction that others were in the way of.
_TRIES = 10
#: Seconds between two looks at the deadline.
_STEP = 0.1


class _Late(Exception):
    """The deadline has passed."""


class Line(psycopg.Connection[Row]):
    """A connection that waits until ``deadline`` at most, and keeps what it is told meanwhile."""

    deadline: float = 0.0

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        super().__init__(pgconn)
        self.payloads: list[str] = []
        self.add_notify_handler(lambda told: self.payloads.append(told.payload))

    def wait(self, gen: Generator[Any, Any, T], interval: float = _STEP, timeout: float | None = None) -> T:
        """See psycopg: between two looks at the deadline ``interval`` seconds pass at most."""
        deadline = self.deadline if timeout is None else min(self.deadline, monotonic() + timeout)
        return super().wait(_limited(gen, deadline), min(interval, max(deadline - monotonic(), 0.005)))

    def told(self, seconds: float) -> list[str]:
        """The payloads of what the server says unasked; waits up to ``seconds`` for the first."""
        if not self.payloads and _readable(self.pgconn.socket, seconds):
            self.pgconn.consume_input()
            while (each := self.pgconn.notifies()) is not None:
                self.payloads.append(each.extra.decode())
            if self.pgconn.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError("the server closed the connection")
        payloads, self.payloads = self.payloads, []
        return payloads


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _limited(gen: Generator[Any, Any, T], deadline: float) -> Generator[Any, Any, T]:
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() >= deadline:
                raise _Late
            wanted = gen.send(ready)
    except StopIteration as end:
        value: T = end.value
        return value


def _connected(parameters: Mapping[str, str], deadline: float) -> pq.abc.PGconn:
    """libpq's own steps, for its connect_timeout knows whole seconds only."""
    text = make_conninfo(**parameters)
    pgconn = pq.PGconn.connect_start(text.encode())
    wanted: int = pq.PollingStatus.WRITING
    while True:
        if pgconn.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError(pgconn.get_error_message())
        if wanted == pq.PollingStatus.OK:
            pgconn.nonblocking = 1
            return pgconn
        if wanted == pq.PollingStatus.FAILED:
            raise psycopg.OperationalError(pgconn.get_error_message())
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN if wanted == pq.PollingStatus.READING else select.POLLOUT)
        left = deadline - monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            pgconn.finish()
            raise _Late
        wanted = pgconn.connect_poll()


class Desk:
    """One connection for one thread at a time, opened when it is first needed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pid = os.getpid()
        self._line: Line | None = None
        #: Which of the address's places is tried first.
        self._place = 0
        self._calls = calls(address.schema)

    def call(self, name: str, args: Sequence[Any], timeout: float) -> list[Row]:
        """Run one of ``calls.sql``, and return its rows."""
        return self._patiently(lambda line: _rows(line, self._calls[name], args), timeout)

    def transaction(self, work: Callable[[Callable[[str, Sequence[Any]], list[Row]]], T], timeout: float) -> T:
        """``work(call)`` in one transaction; it may be called again."""

        def attempt(line: Line) -> T:
            with line.transaction():
                return work(lambda name, args: _rows(line, self._calls[name], args))

        return self._patiently(attempt, timeout)

    def migrate(self, timeout: float) -> tuple[int, int]:
        """Bring the schema up to this version, whatever ``auto_migrate`` says; the version before and the one now."""
        deadline = monotonic() + timeout
        line = self._connect(deadline, timeout)
        try:
            return schema.migrate(line, self.address)
        except _Late as error:
            raise silent(self.address, timeout, uncertain=True) from error
        except psycopg.Error as error:
            raise refused(self.address, error) from error

    def notified(self, seconds: float) -> list[str]:
        """The payloads of what this connection is told; waits up to ``seconds`` for the first."""
        line = self._line
        if line is None:
            return []
        try:
            return line.told(seconds)
        except psycopg.Error as error:
            self.close()
            raise lost(self.address, error) from error

    def listen(self, channel: str, timeout: float) -> None:
        """Be told what is sent to a channel."""
        self._patiently(lambda line: line.execute(f'LISTEN "{channel}"'.encode()), timeout)

    def forget(self, timeout: float) -> None:
        """Listen to nothing any more."""
        self._patiently(lambda line: line.execute("UNLISTEN *"), timeout)
        if self._line is not None:
            self._line.payloads.clear()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._line is not None

    def _patiently(self, run: Callable[[Line], T], timeout: float) -> T:
        deadline = monotonic() + timeout
        tries = 0
        while True:
            tries += 1
            line = self._ready(deadline, timeout)
            line.deadline = deadline
            try:
                return run(line)
            except _Late as error:
                self.close()
                raise silent(self.address, timeout, uncertain=True) from error
            except psycopg.Error as error:
                if line.closed or line.broken:
                    self.close()
                    raise lost(self.address, error, uncertain=True) from error
                if not is_transient(error) or tries >= _TRIES or monotonic() >= deadline:
                    raise refused(self.address, error) from error
            time.sleep(random.random() * 0.01 * tries)

    def _ready(self, deadline: float, timeout: float) -> Line:
        line = self._line
        if line is not None and not _is_stale(line):
            return line
        line = self._connect(deadline, timeout)
        try:
            schema.prepare(line, self.address)
        except _Late as error:
            self.close()
            raise silent(self.address, timeout, uncertain=False) from error
        except psycopg.Error as error:
            self.close()
            raise lost(self.address, error) from error
        except OperationalError:
            self.close()
            raise
        return line

    def _connect(self, deadline: float, timeout: float) -> Line:
        """To the place that answered last, else to the next one that does."""
        self.close()
        places, failure = self.address.places, Exception()
        for left in range(len(places), 0, -1):
            now = monotonic()
            try:
                line = Line(_connected(places[self._place], now + (deadline - now) / left))
                line.deadline = deadline
                line.autocommit = True
            except (_Late, psycopg.Error) as error:
                self._place = (self._place + 1) % len(places)
                failure = error
            else:
                return self._kept(line)
        if isinstance(failure, _Late):
            raise silent(self.address, timeout, uncertain=False) from failure
        raise lost(self.address, failure) from failure

    def _kept(self, line: Line) -> Line:
        self._line = line
        if not self.address.listen:
            line.prepare_threshold = None
        return line

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent. One of another process is only forgotten: its server process would end."""
        line, self._line = self._line, None
        if line is not None:
            if self.pid == os.getpid():
                line.close()
            else:
                _abandon(line)


def _rows(line: Line, statement: bytes, args: Sequence[Any]) -> list[Row]:
    cursor = line.execute(statement, args, binary=True)
    return cursor.fetchall() if cursor.description is not None else []


def _is_stale(line: Line) -> bool:
    """Whether the server has ended an idle connection, found without sending anything."""
    if line.closed or line.broken:
        return True
    pgconn = line.pgconn
    if not _readable(pgconn.socket, 0):
        return False
    try:
        pgconn.consume_input()
        # Whatever it says that is no notification is mostly its last word: the end comes a moment later.
        return pgconn.notifies() is None or bool(pgconn.status == pq.ConnStatus.BAD)
    except psycopg.Error:
        return True


def _abandon(line: Line) -> None:
    """Close the descriptor alone: libpq would tell the server that the session is over."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, line.pgconn.socket)
        os.close(null)
    except (OSError, psycopg.Error):
        pass
    line.close()


class Pool:
    """Desks for any number of threads; keeps ``limit`` of them."""

    def __init__(self, address: Address, limit: int) -> None:
        self.address = address
        self._limit = max(1, limit)
        # No lock: a fork could copy it while it is held. A deque's append and pop are atomic.
        self._idle: deque[Desk] = deque()

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """A desk for the calling thread alone."""
        desk = self._take()
        try:
            yield desk
        finally:
            self._put_back(desk)

    def call(self, name: str, args: Sequence[Any], timeout: float) -> list[Row]:
        """Run one of ``calls.sql``, and return its rows."""
        with self.desk() as desk:
            return desk.call(name, args, timeout)

    def _take(self) -> Desk:
        while True:
            try:
                desk = self._idle.pop()
            except IndexError:
                return Desk(self.address)
            if desk.pid == os.getpid():
                return desk
            desk.close()

    def _put_back(self, desk: Desk) -> None:
        if desk.is_open and len(self._idle) < self._limit and desk.pid == os.getpid():
            self._idle.append(desk)
        else:
            desk.close()

    def close(self) -> None:
        """Close the idle connections. A later use opens others."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return
