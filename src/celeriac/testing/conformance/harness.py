"""What the suite must know of a server: how to reach it, how time passes, and what harm can be done to it.

Adapter authors subclass ``Harness``; each test gets a fresh one, with a name space of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NoReturn

import pytest

from celeriac.ports import AdapterOptions, Broker, Caller, DeadLetters, Publisher, Reader, ResultStore

__all__ = ["Harness"]

_numbers = itertools.count(1)
#: So many times as long at most is all that a busy machine is waited for.
_MOST_BUSY = 4.0


def _busy() -> float:
    """How much more there is to do than this machine can, 1.0 at least."""
    try:
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):  # nobody knows
        load = 1.0
    return min(max(load, 1.0), _MOST_BUSY)


class Harness:
    """One name space on one server. The class attributes are the defaults; times in seconds, at rest: on a busy machine
    ``late`` is longer, and where time is waited for ``lease`` and ``soon`` are."""

    #: The adapter's module: ``broker(url, options)`` and so on.
    adapter: ModuleType
    url: str
    #: Fields of ``AdapterOptions`` that all instances get.
    options: Mapping[str, Any] = {}
    #: The lease of tests that wait for its end.
    lease: float = 0.4
    #: Minutes pass in no time: ``elapse`` turns a virtual clock.
    leaps: bool = False
    #: How late something may happen on a loaded machine.
    late: float = 0.5
    #: How far ahead is what is due soon; longer where a first call may take a moment.
    soon: float = 0.2
    #: Other processes reach the same server.
    between_processes: bool = True
    #: Messages with a due time that a plain ``Publisher`` sends go to the schedule (not so in Celery's layout).
    publisher_schedules: bool = True
    #: All queues are on one server: priorities hold across queues, and a send to several queues is all or none.
    one_server: bool = True
    #: What gets no seat waits in the server, in line (``Limiter``). A ledger beside the queues cannot do so.
    parks: bool = True
    #: Dropping a message drops the lock of its task; on another server it stays, and gives way to the next one.
    purges_locks: bool = True
    #: The server looks into its queues for single messages (``Rules.withdraw``).
    withdraws: bool = True
    #: A URL like ``url`` behind which nothing answers, with ``password`` in it where URLs have one.
    unreachable: str | None = None
    password: str = "s3cret-word"
    #: Examples of the model-based test, and the length of its time unit.
    examples: int = 3
    #: Look for the shortest history that fails; takes long in real time.
    shrinks: bool = False
    unit: float = 0.01
    #: Sentences that this server cannot keep, and why: names of tests, a parametrized one with its case as
    #: ``test_x[case]`` or all of it as ``test_x``. They are skipped with that reason, never weakened.
    exempt: Mapping[str, str] = {}

    def __init__(self) -> None:
        self._open: list[Broker | ResultStore] = []
        if not self.leaps:
            busy = _busy()
            self.late *= busy
            if type(self).lapse is Harness.lapse:  # a clock that is turned stands still meanwhile
                self.lease, self.soon = self.lease * busy, self.soon * busy

    # -- instances ---------------------------------------------------------------------------------------------------

    def adapter_options(self, **fields: Any) -> AdapterOptions:
        """Options of an instance; each has an owner of its own unless told otherwise."""
        owner = f"owner-{os.getpid()}-{next(_numbers)}"
        return AdapterOptions(**{"owner": owner, **self.options, **fields})

    def broker(self, **fields: Any) -> Broker:
        """A broker that is not open; ``fields`` are those of ``AdapterOptions``, or ``url``."""
        broker: Broker = self.adapter.broker(fields.pop("url", self.url), self.adapter_options(**fields))
        self._open.append(broker)
        return broker

    def store(self, **fields: Any) -> ResultStore:
        """A result store that is not open. Skips the test when the adapter keeps no results."""
        if not hasattr(self.adapter, "store"):
            self.cannot("keep results")
        store: ResultStore = self.adapter.store(fields.pop("url", self.url), self.adapter_options(**fields))
        self._open.append(store)
        return store

    async def open_broker(self, **fields: Any) -> Broker:
        """An open broker; the suite closes it."""
        broker = self.broker(**fields)
        await broker.open()
        return broker

    async def open_store(self, **fields: Any) -> ResultStore:
        """An open result store; the suite closes it."""
        store = self.store(**fields)
        await store.open()
        return store

    def publisher(self, **fields: Any) -> Publisher:
        """A publisher; the test closes it."""
        publisher: Publisher = self.adapter.publisher(fields.pop("url", self.url), self.adapter_options(**fields))
        return publisher

    def reader(self, **fields: Any) -> Reader:
        """A reader; the test closes it."""
        if not hasattr(self.adapter, "reader"):
            self.cannot("keep results")
        reader: Reader = self.adapter.reader(fields.pop("url", self.url), self.adapter_options(**fields))
        return reader

    def dead_letters(self, **fields: Any) -> DeadLetters:
        """The dead letters; the test closes them. Skips it when the adapter does not show them."""
        make = getattr(self.adapter, "dead_letters", None)
        if make is None:
            self.cannot("show its dead letters")
        letters: DeadLetters = make(fields.pop("url", self.url), self.adapter_options(**fields))
        return letters

    def caller(self, **fields: Any) -> Caller:
        """A caller; the test closes it."""
        caller: Caller = self.adapter.caller(fields.pop("url", self.url), self.adapter_options(**fields))
        return caller

    async def close_all(self) -> None:
        """Close what the test has opened, in the loop it was opened in."""
        while self._open:
            await self._open.pop().close()

    # -- time --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The server's time, seconds since the epoch."""
        return time.time()

    async def elapse(self, seconds: float) -> None:
        """Let time pass: really, or on a virtual clock."""
        await asyncio.sleep(seconds)

    async def lapse(self, seconds: float) -> None:
        """Let run out what only the server measures (leases, tokens, life times, what is due): by waiting, or by
        turning its clock where that can be done."""
        await self.elapse(seconds)

    # -- harm; what is not overridden is skipped ---------------------------------------------------------------------

    async def inject(self, queue: str, raw: bytes) -> None:
        """Put bytes behind the messages of a queue, as a foreign producer could."""
        self.cannot("put raw bytes into a queue")

    async def inject_topic(self, exchange: str, raw: bytes) -> None:
        """Send bytes to those who listen to an exchange."""
        self.cannot("send raw bytes to an exchange")

    async def spoil(self, queue: str) -> None:
        """Put something of a wrong type where a queue's messages are kept, so that writing there fails."""
        self.cannot("spoil a queue")

    async def heal(self, queue: str) -> None:
        """Undo ``spoil``."""

    async def cut(self) -> None:
        """Break all connections to the server, which goes on."""
        self.cannot("cut connections")

    async def silence(self, on: bool) -> None:
        """Let the server answer nothing while its connections stay; or end that."""
        self.cannot("silence the server")

    def needs_one_server(self) -> None:
        """Skip the test where queues are on several servers."""
        if not self.one_server:
            self.cannot("do that with queues on several servers")

    def cannot(self, what: str) -> NoReturn:
        """Skip the test."""
        pytest.skip(f"{type(self).__name__} cannot {what}")
