"""One event loop's connection: work, one round trip a call, and in between what the server tells (LISTEN).

One connection does for both (line.py). Calls wait for each other. Used by the asyncio ports; knows no statement.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from celeriac.brokers.dialing import monotonic, shares
from celeriac.brokers.postgres import schema
from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.dialing import attempts_on_loop
from celeriac.brokers.postgres.errors import closed, is_transient, lost, refused, silent
from celeriac.brokers.postgres.line import Line
from celeriac.brokers.postgres.statements import VERSION, calls
from celeriac.brokers.postgres.wire import Row, bare

__all__ = ["LONG", "Call", "Session", "shielded"]

T = TypeVar("T")
#: Runs one of ``calls.sql`` inside a transaction.
Call = Callable[[str, Sequence[Any]], Awaitable[list[Row]]]
#: Seconds after which a server that does not answer is given up; for what looks at many rows the longer one.
_PATIENCE, LONG = 8.0, 60.0
#: Tries of a transaction that others were in the way of.
_TRIES = 10
_BEGIN, _COMMIT, _ROLLBACK = map(bare, ("BEGIN", "COMMIT", "ROLLBACK"))


class Session:
    """Connects when it is needed, and again when the connection broke; the call that meets the break raises."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_open = False
        #: Counts connections: what was said to an earlier one is forgotten.
        self.generation = 0
        self._calls = calls(address.schema)
        self._line: Line | None = None
        self._lock = asyncio.Lock()
        #: Which of the address's places is tried first.
        self._place = 0
        self._ringing: set[asyncio.Future[bool]] = set()
        #: Rings that came so far.
        self.rings = 0
        #: Queues for whose messages this connection has said that it waits (a lock for each).
        self.doors: set[str] = set()

    # ------------------------------------------------------------ life

    async def open(self) -> None:
        """Connect. Idempotent; without it all calls raise."""
        self.is_open = True
        try:
            async with self._lock:
                await self._ready()
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
        if self._line is not None:
            self._line.finish()

    # ------------------------------------------------------------ work

    async def call(self, name: str, args: Sequence[Any], seconds: float = _PATIENCE) -> list[Row]:
        """Run one of ``calls.sql``, and return its rows. A cancelled caller leaves it to its end."""
        statement = self._calls[name]
        return await shielded(self._patiently(lambda line: line.run(statement, args), seconds))

    async def transaction(self, work: Callable[[Call], Awaitable[T]], seconds: float = LONG) -> T:
        """``work(call)`` in one transaction; it may be called again."""

        async def attempt(line: Line) -> T:
            await line.run(_BEGIN, ())
            try:
                done = await work(lambda name, args: line.run(self._calls[name], args))
                await line.run(_COMMIT, ())
            except (psycopg.Error, ValueError, TypeError):
                if not line.broken:
                    await line.run(_ROLLBACK, ())
                raise
            return done

        return await shielded(self._patiently(attempt, seconds))

    async def _patiently(self, work: Callable[[Line], Awaitable[T]], seconds: float) -> T:
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

    async def _run(self, work: Callable[[Line], Awaitable[T]], seconds: float) -> T:
        line = await self._ready()
        timer = asyncio.get_running_loop().call_later(seconds, line.give_up)
        try:
            return await work(line)
        except psycopg.Error as error:
            if not line.broken:
                raise
            self._drop()
            if line.late:
                raise silent(self.address, seconds, uncertain=True) from error
            raise lost(self.address, error, uncertain=True) from error
        except (ValueError, TypeError, UnicodeError):
            raise  # of an argument: nothing was sent
        except BaseException:
            self._drop()
            raise
        finally:
            timer.cancel()

    # ------------------------------------------------------------ connecting

    async def _ready(self) -> Line:
        if not self.is_open:
            raise closed(self.address)
        if self._line is None or self._line.broken:
            self._drop()
            self._line = await self._connect()
            self.generation += 1
        return self._line

    async def _connect(self) -> Line:
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

    async def _connect_to(self, parameters: Mapping[str, str], timeout: float) -> Line:
        line = await self._line_to(parameters, timeout)
        timer = asyncio.get_running_loop().call_later(timeout, line.give_up)
        try:
            version = await self._version(line)
        except BaseException:
            line.close()
            raise
        finally:
            timer.cancel()
        if version == VERSION:
            return line
        line.close()
        await asyncio.to_thread(schema.bring_up, self.address)
        return await self._line_to(parameters, timeout)

    async def _line_to(self, parameters: Mapping[str, str], timeout: float) -> Line:
        """To the first address that answers."""
        tries, failure = await attempts_on_loop(parameters), None
        for each, until in zip(tries, shares(len(tries), monotonic() + timeout), strict=True):
            try:
                async with asyncio.timeout(max(until - monotonic(), 0.001)):
                    connection = await psycopg.AsyncConnection.connect(make_conninfo(**each), autocommit=True)
                return Line(connection, prepares=self.address.listen, ring=self.ring)
            except (TimeoutError, psycopg.Error) as error:
                failure = failure or error
        assert failure is not None
        raise failure

    async def _version(self, line: Line) -> int:
        """That of the schema; 0: there is none."""
        try:
            rows = await line.run(self._calls["version"], ())
        except psycopg.errors.UndefinedTable:
            return 0
        return int(rows[0][0]) if rows else 0

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    # ------------------------------------------------------------ waiting

    def ring(self) -> None:
        """Wake all who wait here."""
        self.rings += 1
        for future in self._ringing:
            if not future.done():
                future.set_result(True)

    def knock(self, queues: Iterable[str] | None = None) -> None:
        """A call of this connection brought messages to these queues (None: to some). It says so to itself: the server
        tells nobody when there is no other connection that waits, for nobody's own lock stands in its way."""
        if self.doors and (queues is None or not self.doors.isdisjoint(queues)):
            self.ring()

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


def _wake(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
