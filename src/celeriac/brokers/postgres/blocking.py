"""Blocking connections with a deadline, and the pool of them that producers share.

Safe in threads (a connection is used by one at a time), after forks (a child forgets its parent's connections without
a word to the server) and in greenlets (waiting is ``select.poll``, which gevent replaces). A stale pooled connection is
noticed before anything is sent, and replaced.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors, pq
from psycopg.conninfo import make_conninfo

from celeriac.brokers.dialing import shares
from celeriac.brokers.postgres import schema
from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.dialing import attempts
from celeriac.brokers.postgres.errors import is_transient, lost, refused, silent
from celeriac.brokers.postgres.statements import VERSION, calls
from celeriac.brokers.postgres.wire import Row, Statement, bare, rows_of

__all__ = ["Call", "Desk", "Pool"]

T = TypeVar("T")
#: Runs one of ``calls.sql`` inside a transaction.
Call = Callable[[str, Sequence[Any]], list[Row]]
monotonic = time.monotonic
#: Tries of a transaction that others were in the way of.
_TRIES = 10
_BEGIN, _COMMIT, _ROLLBACK, _UNLISTEN = map(bare, ("BEGIN", "COMMIT", "ROLLBACK", "UNLISTEN *"))


class _Late(Exception):
    """The deadline has passed."""


def _wait(descriptor: int, events: int, deadline: float) -> int:
    poll = select.poll()
    poll.register(descriptor, events)
    found = poll.poll(max(0.0, deadline - monotonic()) * 1000)
    if not found:
        raise _Late
    return found[0][1]


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _connected(parameters: Mapping[str, str], deadline: float) -> pq.abc.PGconn:
    """To the first address that answers."""
    tries, failure = attempts(parameters), None
    for each, until in zip(tries, shares(len(tries), deadline), strict=True):
        try:
            return _connected_to(each, until)
        except (_Late, psycopg.Error) as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _connected_to(parameters: Mapping[str, str], deadline: float) -> pq.abc.PGconn:
    """libpq's own steps, for its connect_timeout knows whole seconds only."""
    pgconn = pq.PGconn.connect_start(make_conninfo(**parameters).encode())
    wanted: int = pq.PollingStatus.WRITING
    while wanted != pq.PollingStatus.OK:
        if pgconn.status == pq.ConnStatus.BAD or wanted == pq.PollingStatus.FAILED:
            raise psycopg.OperationalError(pgconn.get_error_message())
        try:
            events = select.POLLIN if wanted == pq.PollingStatus.READING else select.POLLOUT
            _wait(pgconn.socket, events, deadline)
        except _Late:
            pgconn.finish()
            raise
        wanted = pgconn.connect_poll()
    pgconn.nonblocking = 1
    return pgconn


class Line:
    """One connection. Not thread-safe; raises psycopg's errors, and ``_Late``."""

    def __init__(self, parameters: Mapping[str, str], deadline: float, *, prepares: bool) -> None:
        #: What it was told meanwhile: payloads.
        self.payloads: list[str] = []
        self._pgconn = _connected(parameters, deadline)
        self._prepares = prepares
        self._prepared: set[bytes] = set()

    def run(self, statement: Statement, args: Sequence[Any], deadline: float) -> list[Row]:
        """One statement, one answer."""
        pgconn, values = self._pgconn, statement.encoded(args)
        formats = [pq.Format.BINARY] * len(values)
        if self._prepares and statement.name:
            if statement.name not in self._prepared:
                pgconn.send_prepare(statement.name, statement.text)
                self._answer(deadline)
                self._prepared.add(statement.name)
            pgconn.send_query_prepared(statement.name, values, formats, pq.Format.BINARY)
        else:
            pgconn.send_query_params(statement.text, values, None, formats, pq.Format.BINARY)
        return self._answer(deadline)

    def _answer(self, deadline: float) -> list[Row]:
        pgconn = self._pgconn
        while pgconn.flush():
            if _wait(pgconn.socket, select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                pgconn.consume_input()
        results: list[pq.abc.PGresult] = []
        while True:
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    self._note()
                    return rows_of(results)
                results.append(result)
            _wait(pgconn.socket, select.POLLIN, deadline)
            pgconn.consume_input()

    def _note(self) -> None:
        while (each := self._pgconn.notifies()) is not None:
            self.payloads.append(each.extra.decode())

    def told(self, seconds: float) -> list[str]:
        """The payloads of what the server says unasked; waits up to ``seconds`` for the first."""
        if not self.payloads and _readable(self._pgconn.socket, seconds):
            self._pgconn.consume_input()
            self._note()
            if self.broken:
                raise psycopg.OperationalError("the server closed the connection")
        payloads, self.payloads = self.payloads, []
        return payloads

    @property
    def broken(self) -> bool:
        """Whether it is known to be of no use."""
        return bool(self._pgconn.status != pq.ConnStatus.OK)

    def is_stale(self) -> bool:
        """Whether the server has ended the idle connection, found without sending anything; or whoever had it was
        interrupted, so that an answer may be under way, or a transaction open."""
        if self.broken or self._pgconn.transaction_status != pq.TransactionStatus.IDLE:
            return True
        if not _readable(self._pgconn.socket, 0):
            return False
        try:
            self._pgconn.consume_input()
            # Whatever it says that is no notification is mostly its last word: the end comes a moment later.
            before = len(self.payloads)
            self._note()
            return len(self.payloads) == before or self.broken
        except psycopg.Error:
            return True

    def abandon(self) -> None:
        """Close the descriptor alone: libpq would tell the server that the session is over."""
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, self._pgconn.socket)
            os.close(null)
        except (OSError, psycopg.Error):
            pass
        self.close()

    def close(self) -> None:
        """End the session."""
        self._pgconn.finish()


class Desk:
    """One connection for one thread at a time, opened when it is first needed."""

    #: Here, for ``__del__``: a signal's exception may come before all of ``__init__``.
    _line: Line | None = None

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pid = os.getpid()
        #: Which of the address's places is tried first.
        self._place = 0
        self._calls = calls(address.schema)

    # ------------------------------------------------------------ work

    def call(self, name: str, args: Sequence[Any], timeout: float) -> list[Row]:
        """Run one of ``calls.sql``, and return its rows."""
        statement = self._calls[name]
        return self._patiently(lambda line, deadline: line.run(statement, args, deadline), timeout)

    def transaction(self, work: Callable[[Call], T], timeout: float) -> T:
        """``work(call)`` in one transaction; it may be called again."""

        def attempt(line: Line, deadline: float) -> T:
            line.run(_BEGIN, (), deadline)
            try:
                done = work(lambda name, args: line.run(self._calls[name], args, deadline))
                line.run(_COMMIT, (), deadline)
            except (psycopg.Error, ValueError, TypeError):
                if not line.broken:
                    line.run(_ROLLBACK, (), deadline)
                raise
            return done

        return self._patiently(attempt, timeout)

    def notified(self, seconds: float) -> list[str]:
        """The payloads of what this connection is told; waits up to ``seconds`` for the first."""
        if self._line is None:
            return []
        try:
            return self._line.told(seconds)
        except psycopg.Error as error:
            self.close()
            raise lost(self.address, error) from error

    def listen(self, channel: str, timeout: float) -> None:
        """Be told what is sent to a channel."""
        self._patiently(lambda line, deadline: line.run(bare(f'LISTEN "{channel}"'), (), deadline), timeout)

    def forget(self, timeout: float) -> None:
        """Listen to nothing any more."""
        self._patiently(lambda line, deadline: line.run(_UNLISTEN, (), deadline), timeout)
        if self._line is not None:
            self._line.payloads.clear()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._line is not None

    def _patiently(self, run: Callable[[Line, float], T], timeout: float) -> T:
        deadline = monotonic() + timeout
        tries = 0
        while True:
            tries += 1
            line = self._ready(deadline, timeout)
            try:
                return run(line, deadline)
            except _Late as error:
                self.close()
                raise silent(self.address, timeout, uncertain=True) from error
            except psycopg.Error as error:
                if line.broken:
                    self.close()
                    raise lost(self.address, error, uncertain=True) from error
                if not is_transient(error) or tries >= _TRIES or monotonic() >= deadline:
                    raise refused(self.address, error) from error
            except (ValueError, TypeError, UnicodeError):
                raise  # of an argument: nothing was sent
            except BaseException:
                self.close()  # in the middle of an answer
                raise
            time.sleep(random.random() * 0.01 * tries)

    # ------------------------------------------------------------ connecting

    def _ready(self, deadline: float, timeout: float) -> Line:
        line = self._line
        if line is not None and not line.is_stale():
            return line
        self.close()
        line = self._connect(deadline, timeout)
        try:
            if _version(line, self._calls["version"], deadline) != VERSION:
                line.close()
                schema.bring_up(self.address)
                line = self._connect(deadline, timeout)
        except _Late as error:
            raise silent(self.address, timeout, uncertain=False) from error
        except psycopg.Error as error:
            raise lost(self.address, error) from error
        self._line = line
        return line

    def _connect(self, deadline: float, timeout: float) -> Line:
        """To the place that answered last, else to the next one that does."""
        places, failure = self.address.places, Exception()
        for left in range(len(places), 0, -1):
            now = monotonic()
            try:
                return Line(places[self._place], now + (deadline - now) / left, prepares=self.address.listen)
            except (_Late, psycopg.Error) as error:
                self._place = (self._place + 1) % len(places)
                failure = error
        if isinstance(failure, _Late):
            raise silent(self.address, timeout, uncertain=False) from failure
        raise lost(self.address, failure) from failure

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent. One of another process is only forgotten: its server process would end."""
        line, self._line = self._line, None
        if line is not None:
            if self.pid == os.getpid():
                line.close()
            else:
                line.abandon()


def _version(line: Line, statement: Statement, deadline: float) -> int:
    """That of the schema; 0: there is none."""
    try:
        rows = line.run(statement, (), deadline)
    except errors.UndefinedTable:
        return 0
    return int(rows[0][0]) if rows else 0


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
        desk = self._take()
        try:
            return desk.call(name, args, timeout)
        finally:
            self._put_back(desk)

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
