"""A file as one event loop uses it: short work in the loop itself, long work aside, patience with locks, waking.

SQLite's calls block. A batch takes a fraction of a millisecond, a hop to a thread and back as long as a whole claim
(ADR 0003), so they run in the loop; what may take long or must sync the disk (counting, purging, maintenance, copying
the log) runs in one thread aside. A locked file is tried again by short sleeps of the coroutine.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from celeriac.brokers.sqlite import upkeep
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.bells import BLIND, Bell, Bells
from celeriac.brokers.sqlite.blocking import Desk, pauses
from celeriac.brokers.sqlite.connection import Connection
from celeriac.brokers.sqlite.errors import Busy, locked
from celeriac.exceptions import OperationalError

__all__ = ["Session", "rung"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
#: Rows written by this process after which the log is copied into the file, some 10 MB of it.
_CHECKPOINT_ROWS = 8000
#: A loop cannot sleep for less than this; shorter pauses hold it up instead, five milliseconds in all. With two workers
#: on one file, 29 k tasks/s instead of 16-25 k.
_SHORTEST_SLEEP = 0.001


class Session:
    """One loop's connection, bells and thread. Opens what it needs when it is needed."""

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self.bells = Bells(address.path)
        self._timeout = timeout
        self._connection = Connection(address)
        self.is_open = False
        self._written = 0
        self._copying: asyncio.Future[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._desk: Desk | None = None
        self._doors: dict[str, Bell] = {}
        self._waiters: dict[str, set[asyncio.Future[bool]]] = {}

    async def open(self) -> None:
        """Open the file, creating it when there is none. Idempotent; without it all calls raise."""
        self.is_open = True
        await self.bare(lambda sqlite: None)

    async def write(self, work: Work[T], *, rows: int) -> T:
        """``work`` in a transaction, in the loop; it may be called again. ``rows``: about how many it writes."""
        done = await self._patiently(self._connection.write, work)
        self._written += rows
        if self._written >= _CHECKPOINT_ROWS and self._copying is None:
            self._written = 0
            self._copying = asyncio.ensure_future(self._copy_log())
        return done

    async def read(self, work: Work[T]) -> T:
        """``work`` on a snapshot, in the loop: for a few look-ups."""
        return await self._patiently(self._connection.read, work)

    async def bare(self, work: Work[T]) -> T:
        """``work`` outside of a transaction, in the loop: for a single look-up."""
        return await self._patiently(self._connection.bare, work)

    def at_once(self, work: Work[T]) -> T:
        """``work`` outside of a transaction, now or never: ``Busy`` or ``OperationalError``."""
        self._check_open()
        return self._connection.bare(work)

    async def aside(self, work: Callable[[Desk, float], T]) -> T:
        """``work(desk, timeout)`` in the thread: for what takes long."""
        self._check_open()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="celeriac-sqlite")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._at_desk, work)

    def _at_desk(self, work: Callable[[Desk, float], T]) -> T:
        if self._desk is None:
            self._desk = Desk(self.address)
        return work(self._desk, self._timeout)

    def _check_open(self) -> None:
        if not self.is_open:
            raise OperationalError(f"SQLite file {self.address.path}: it was closed by this program; call open() first")

    async def _patiently(self, run: Callable[[Work[T]], T], work: Work[T]) -> T:
        self._check_open()
        try:
            return run(work)
        except Busy:
            pass
        start = time.monotonic()
        for pause in pauses():
            if pause < _SHORTEST_SLEEP:
                time.sleep(pause)  # noqa: ASYNC251 - shorter than any sleep of the loop
            else:
                await asyncio.sleep(pause)
            try:
                return run(work)
            except Busy as busy:
                if time.monotonic() - start >= self._timeout:
                    raise locked(self.address.path, self._timeout) from busy.__cause__
        raise AssertionError("pauses never end")

    async def _copy_log(self) -> None:
        try:
            await self.aside(lambda desk, timeout: desk.bare(upkeep.checkpoint, timeout))
        except OperationalError:
            pass  # the next commit that meets the trouble reports it
        finally:
            self._copying = None

    # ------------------------------------------------------------ waiting

    async def at_doors(self, queues: Sequence[str], seconds: float) -> bool:
        """Wait for a ring of one of these queues, at most ``seconds``; True when one came. A ring that was heard by a
        coroutine that is cancelled is rung again."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        for queue in queues:
            if self._listen(loop, queue, future):
                continue
            seconds = min(seconds, BLIND)
        timer = loop.call_later(max(0.0, seconds), _wake, future, False)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self.bells.ring_queues(queues)
            raise
        finally:
            timer.cancel()
            for queue in queues:
                self._leave(loop, queue, future)

    def _listen(self, loop: asyncio.AbstractEventLoop, queue: str, future: asyncio.Future[bool]) -> bool:
        waiters = self._waiters.setdefault(queue, set())
        if not waiters:
            door = self._doors.get(queue)
            if door is None or door.gone:
                if door is not None:
                    door.close()
                door = self._doors[queue] = self.bells.queue(queue)
            if door.fd is not None:
                loop.add_reader(door.fd, self._rung, queue)
        waiters.add(future)
        return self._doors[queue].fd is not None

    def _leave(self, loop: asyncio.AbstractEventLoop, queue: str, future: asyncio.Future[bool]) -> None:
        waiters = self._waiters.get(queue)
        if waiters is None or future not in waiters:
            return
        waiters.discard(future)
        if not waiters:
            door = self._doors.get(queue)
            if door is not None and door.fd is not None:
                loop.remove_reader(door.fd)

    def _rung(self, queue: str) -> None:
        if self._doors[queue].heard():
            for future in self._waiters[queue]:
                _wake(future, True)

    async def close(self) -> None:
        """Close everything; those who wait go on. Idempotent."""
        self.is_open = False
        for waiters in self._waiters.values():
            for future in waiters:
                _wake(future, True)
        await asyncio.sleep(0)
        if self._copying is not None:
            await asyncio.wait([self._copying])
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, thread.shutdown)
        if self._desk is not None:
            self._desk.close()
            self._desk = None
        loop = asyncio.get_running_loop()
        for queue, door in self._doors.items():
            if self._waiters.get(queue) and door.fd is not None:
                loop.remove_reader(door.fd)
            door.close()
        self._doors.clear()
        self._waiters.clear()
        self._connection.close()
        self.bells.close()


async def rung(bell: Bell, seconds: float) -> bool:
    """Wait at a bell of one's own, at most ``seconds``; True when it rang."""
    if bell.fd is None:
        await asyncio.sleep(min(seconds, BLIND))
        return True
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()
    loop.add_reader(bell.fd, _wake, future, True)
    timer = loop.call_later(max(0.0, seconds), _wake, future, False)
    try:
        return await future and bell.heard()
    finally:
        timer.cancel()
        loop.remove_reader(bell.fd)


def _wake(future: asyncio.Future[bool], rang: bool) -> None:
    if not future.done():
        future.set_result(rang)
