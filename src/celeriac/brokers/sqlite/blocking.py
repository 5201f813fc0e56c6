"""Blocking work on a file with a deadline, and the pool of connections that producers share.

Safe in threads (a connection is used by one at a time), after forks (connections of another process are left alone) and
in greenlets. Used by the blocking ports, and by session.py for what is done aside of an event loop.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.bells import Bells
from celeriac.brokers.sqlite.connection import Connection
from celeriac.brokers.sqlite.errors import Busy, locked

__all__ = ["Desk", "Pool", "patiently", "pauses"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_SHORT_PAUSES = 10


def pauses() -> Iterator[float]:
    """Seconds between tries for a lock: about five milliseconds of short ones, for most locks are held for one or two,
    then longer ones up to five milliseconds; at random, so that nobody starves."""
    for _ in range(_SHORT_PAUSES):
        yield 0.0005 * (0.5 + random.random())
    longest = 0.002
    while True:
        yield longest * (0.5 + random.random())
        longest = min(0.005, longest * 1.2)


def patiently(run: Callable[[Work[T]], T], work: Work[T], *, path: str, timeout: float) -> T:
    """``run(work)``, again while the file is locked; ``OperationalError`` after ``timeout`` seconds."""
    try:
        return run(work)
    except Busy:
        pass
    deadline = time.monotonic() + timeout
    for pause in pauses():
        time.sleep(pause)
        try:
            return run(work)
        except Busy as busy:
            if time.monotonic() >= deadline:
                raise locked(path, timeout) from busy.__cause__
    raise AssertionError("pauses never end")


class Desk:
    """What one thread needs: a connection and the bells."""

    __slots__ = ("bells", "connection", "pid")

    def __init__(self, address: Address) -> None:
        self.connection = Connection(address)
        self.bells = Bells(address.path)
        self.pid = os.getpid()

    def write(self, work: Work[T], timeout: float) -> T:
        """``work`` in a transaction; it may be called again when the file is locked."""
        return patiently(self.connection.write, work, path=self.connection.path, timeout=timeout)

    def read(self, work: Work[T], timeout: float) -> T:
        """``work`` on a snapshot."""
        return patiently(self.connection.read, work, path=self.connection.path, timeout=timeout)

    def bare(self, work: Work[T], timeout: float) -> T:
        """``work`` outside of a transaction."""
        return patiently(self.connection.bare, work, path=self.connection.path, timeout=timeout)

    def close(self) -> None:
        """Close both. Idempotent."""
        self.connection.close()
        self.bells.close()


class Pool:
    """Desks for any number of threads; keeps ``limit`` of them."""

    def __init__(self, address: Address, limit: int) -> None:
        self._address = address
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

    def _take(self) -> Desk:
        try:
            desk = self._idle.pop()
        except IndexError:
            return Desk(self._address)
        if desk.pid != os.getpid():
            desk.close()  # leaves SQLite's part alone
            return Desk(self._address)
        return desk

    def _put_back(self, desk: Desk) -> None:
        if len(self._idle) < self._limit:
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
