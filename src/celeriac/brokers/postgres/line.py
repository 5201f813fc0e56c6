"""A connection on an event loop, which reads its socket all the time: answers, notifications, the end of the server.

One statement at a time. Used by session.py alone, which puts calls one behind the other and watches the time.

The loop looks at an epoll of our own, which looks at libpq's socket. When a connection is reset, uvloop calls a reader
once and then never again: if something came just before, that was read, and the reset is never heard of. An epoll is
not reset. And libpq closes its socket when it likes: a loop should not remember a number that may be another's by then.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import pq

from celeriac.brokers.postgres.wire import Row, Statement, rows_of

__all__ = ["Line"]


class Line:
    """Raises psycopg's errors; after some of them, and after ``give_up``, it is ``broken``."""

    def __init__(self, connection: psycopg.AsyncConnection[Row], *, prepares: bool, ring: Callable[[], None]) -> None:
        # Kept for as long as its session lives: psycopg ends that with the object.
        self._connection = connection
        self._pgconn = connection.pgconn
        self._prepares = prepares
        self._ring = ring
        self._prepared: set[bytes] = set()
        self._results: list[pq.abc.PGresult] = []
        self._answer: asyncio.Future[list[pq.abc.PGresult]] | None = None
        self._failure: psycopg.Error | None = None
        #: It was given up because nothing came in time.
        self.late = False
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._epoll = select.epoll()
        self._epoll.register(self._socket, select.EPOLLIN)
        #: Not all was sent.
        self._sending = False
        self._loop.add_reader(self._epoll.fileno(), self._stirred)

    @property
    def broken(self) -> bool:
        """Whether it is known to be of no use."""
        return self._failure is not None

    async def run(self, statement: Statement, args: Sequence[Any]) -> list[Row]:
        """One statement, one answer."""
        pgconn, values = self._pgconn, statement.encoded(args)
        formats = [pq.Format.BINARY] * len(values)
        if not (self._prepares and statement.name):
            return await self._ask(
                lambda: pgconn.send_query_params(statement.text, values, None, formats, pq.Format.BINARY)
            )
        if statement.name not in self._prepared:
            await self._ask(lambda: pgconn.send_prepare(statement.name, statement.text))
            self._prepared.add(statement.name)
        return await self._ask(lambda: pgconn.send_query_prepared(statement.name, values, formats, pq.Format.BINARY))

    async def _ask(self, send: Callable[[], None]) -> list[Row]:
        if self._failure is not None:
            raise self._failure
        self._results = []
        self._answer = self._loop.create_future()
        try:
            send()
            if self._pgconn.flush():
                self._sending = True
                self._epoll.modify(self._socket, select.EPOLLIN | select.EPOLLOUT)
            return rows_of(await self._answer)
        except psycopg.Error as error:
            if self._pgconn.status != pq.ConnStatus.OK:
                self._break(error)
            raise
        finally:
            self._answer = None

    def _stirred(self) -> None:
        """There is something to read, or room to send on."""
        pgconn = self._pgconn
        try:
            if self._sending and not pgconn.flush():
                self._sending = False
                self._epoll.modify(self._socket, select.EPOLLIN)
            pgconn.consume_input()
            while self._answer is not None and not self._answer.done() and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    self._answer.set_result(self._results)
                else:
                    self._results.append(result)
            while pgconn.notifies() is not None:
                self._ring()
            if pgconn.status != pq.ConnStatus.OK:
                self._break(psycopg.OperationalError("the server closed the connection"))
        except psycopg.Error as error:
            self._break(error)

    def _break(self, error: psycopg.Error) -> None:
        """It is of no use any more: tell who waits for an answer, and who waits for a word."""
        if self._failure is not None:
            return
        self._failure = error
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        if self._answer is not None and not self._answer.done():
            # What the server said last says more than that it is gone.
            if any(result.status == pq.ExecStatus.FATAL_ERROR for result in self._results):
                self._answer.set_result(self._results)
            else:
                self._answer.set_exception(error)
        self._ring()

    def give_up(self) -> None:
        """Break it, because it does not answer."""
        if not self.broken:
            self.late = True
            with socket.socket(fileno=os.dup(self._socket)) as peer:
                try:
                    peer.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self._break(psycopg.OperationalError("no answer"))

    def close(self) -> None:
        """End the session. Idempotent."""
        self._break(psycopg.OperationalError("it was closed"))
        self.finish()

    def finish(self) -> None:
        """The same where the loop is over."""
        self._epoll.close()
        self._pgconn.finish()
