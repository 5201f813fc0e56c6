"""One event loop's connection: work, one round trip a call, and in between what the server tells (LISTEN).

While no call runs the loop reads the socket itself, so that one connection does for both, and a server that is gone is
noticed at once. Calls wait for each other. Used by the asyncio ports; knows no statement.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.blocking import Desk
from celeriac.brokers.postgres.errors import closed, is_transient, lost, refused, silent
from celeriac.brokers.postgres.statements import VERSION, calls

__all__ = ["LONG", "Call", "Session"]

T = TypeVar("T")
Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
#: Runs one of ``calls.sql`` inside a transaction.
Call = Callable[[str, Sequence[Any]], Awaitable[list[Row]]]
#: Seconds after which a server that does not answer is given up; for what looks at many rows the longer one.
_PATIENCE, LONG = 8.0, 60.0
#: Tries of a transaction that others were in the way of.
_TRIES = 10


class Session:
    """Connects when it is needed, and again when the connection broke; the call that meets the break raises."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_open = False
        #: Counts connections: what was said to an earlier one is forgotten.
        self.generation = 0
        self._calls = calls(address.schema)
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        #: Which of the address's places is tried first.
        self._place = 0
        self._ringing: set[asyncio.Future[bool]] = set()
        #: Rings that came so far.
        self.rings = 0
        self._listening = -1

    # ------------------------------------------------------------ life

    async def open(self) -> None:
        """Connect. Idempotent; without it all calls raise."""
        self.is_open = True
        try:
            async with self._lock:
                self._hark(await self._ready())
        except BaseException:
            self.is_open = False
            raise

    async def close(self) -> None:
        """Close the connection; those who wait go on. Idempotent."""
        self.is_open = False
        self.ring()
        async with self._lock:
            self._drop()

    def __del__(self) -> None:
        # Of a loop that is over, which nobody closed.
        if self._connection is not None:
            self._connection.pgconn.finish()

    # ------------------------------------------------------------ work

    async def call(self, name: str, args: Sequence[Any], seconds: float = _PATIENCE) -> list[Row]:
        """Run one of ``calls.sql``, and return its rows. A cancelled caller leaves it to its end."""
        statement = self._calls[name]

        async def work(connection: Connection) -> list[Row]:
            return await _rows(connection, statement, args)

        return await shielded(self._patiently(work, seconds))

    async def transaction(self, work: Callable[[Call], Awaitable[T]], seconds: float = LONG) -> T:
        """``work(call)`` in one transaction; it may be called again."""

        async def attempt(connection: Connection) -> T:
            async with connection.transaction():
                return await work(lambda name, args: _rows(connection, self._calls[name], args))

        return await shielded(self._patiently(attempt, seconds))

    async def _patiently(self, work: Callable[[Connection], Awaitable[T]], seconds: float) -> T:
        tries = 0
        while True:
            tries += 1
            try:
                async with self._lock:
                    return await self._run(work, seconds)
            except psycopg.Error as error:
                if not is_transient(error) or tries >= _TRIES:
                    raise refused(self.address, error) from error
            await asyncio.sleep(random.random() * 0.01 * tries)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], seconds: float) -> T:
        connection = await self._ready()
        loop = asyncio.get_running_loop()
        loop.remove_reader(connection.fileno())
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            _shut(connection)

        timer = loop.call_later(seconds, give_up)
        try:
            done = await work(connection)
        except psycopg.Error as error:
            if late:
                self._drop()
                raise silent(self.address, seconds, uncertain=True) from error
            if connection.closed or connection.broken:
                self._drop()
                raise lost(self.address, error, uncertain=True) from error
            self._hark(connection)
            raise
        except BaseException:
            self._drop()
            raise
        finally:
            timer.cancel()
        self._hark(connection)
        return done

    async def _ready(self) -> Connection:
        if not self.is_open:
            raise closed(self.address)
        if self._connection is not None:
            return self._connection
        connection = await self._connect()
        connection.add_notify_handler(lambda _: self.ring())
        self.generation += 1
        self._connection = connection
        return connection

    async def _connect(self) -> Connection:
        """To the place that answered last, else to the next one that does."""
        places, timeout, failure = self.address.places, self.address.connect_timeout, Exception()
        for _ in places:
            try:
                return await self._connect_to(places[self._place], timeout / len(places))
            except (TimeoutError, psycopg.Error) as error:
                self._place = (self._place + 1) % len(places)
                failure = error
        if isinstance(failure, TimeoutError):
            raise silent(self.address, timeout, uncertain=False) from failure
        raise lost(self.address, failure) from failure

    async def _connect_to(self, parameters: Mapping[str, str], timeout: float) -> Connection:
        async with asyncio.timeout(timeout):
            connection = await psycopg.AsyncConnection.connect(make_conninfo(**parameters), autocommit=True)
        if not self.address.listen:
            connection.prepare_threshold = None
        timer = asyncio.get_running_loop().call_later(timeout, _shut, connection)
        try:
            version = await self._version(connection)
        except BaseException:
            connection.pgconn.finish()
            raise
        finally:
            timer.cancel()
        if version != VERSION:
            try:
                await asyncio.to_thread(_prepare, self.address)
            except BaseException:
                connection.pgconn.finish()
                raise
        return connection

    async def _version(self, connection: Connection) -> int:
        """That of the schema; 0: there is none."""
        try:
            cursor = await connection.execute(self._calls["version"])
            row = await cursor.fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
        return 0 if row is None else int(row[0])

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._deafen()
            connection.pgconn.finish()

    # ------------------------------------------------------------ waiting

    def ring(self) -> None:
        """Wake all who wait here."""
        self.rings += 1
        for future in self._ringing:
            if not future.done():
                future.set_result(True)

    async def rung(self, since: int, seconds: float) -> bool:
        """Wait until there are more rings than ``since``, at most ``seconds``; True when one came."""
        if self.rings != since:
            return True
        if seconds <= 0:
            return False
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._ringing.add(future)
        timer = loop.call_later(seconds, _wake, future)
        try:
            return await future
        finally:
            timer.cancel()
            self._ringing.discard(future)

    def _hark(self, connection: Connection) -> None:
        """Let the loop read what the server says unasked."""
        if self._connection is connection:
            self._listening = connection.fileno()
            asyncio.get_running_loop().add_reader(self._listening, self._heard, connection)

    def _deafen(self) -> None:
        if self._listening >= 0:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening = -1

    def _heard(self, connection: Connection) -> None:
        pgconn = connection.pgconn
        try:
            pgconn.consume_input()
            while pgconn.notifies() is not None:
                self.ring()
            broken = pgconn.status != psycopg.pq.ConnStatus.OK
        except psycopg.Error:
            broken = True
        if broken and self._connection is connection:
            self._drop()
            self.ring()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """``work``, which goes on to its end when its caller is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_forget)
        raise


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def _rows(connection: Connection, statement: bytes, args: Sequence[Any]) -> list[Row]:
    cursor = await connection.execute(statement, args, binary=True)
    return await cursor.fetchall() if cursor.description is not None else []


def _prepare(address: Address) -> None:
    desk = Desk(address)
    try:
        desk.call("version", (), max(30.0, address.connect_timeout))
    finally:
        desk.close()


def _shut(connection: Connection) -> None:
    """Break the connection, so that whoever waits for its answer is told."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _wake(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
