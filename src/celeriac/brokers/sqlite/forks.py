"""Lets no fork happen while a thread is inside SQLite, nor any connection live through one.

SQLite keeps what it knows of a file (locks held, shared memory mapped) in variables of the process. A child that
inherits them believes that it holds its parent's locks, which it does not: others then delete the log it writes to.
So all connections are closed before a fork; parent and child open theirs again when they need one. Knows nothing of
what a connection is for; connection.py registers here.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

__all__ = ["Closable", "Crossing", "crossing"]

#: Seconds a fork waits for the calls that are under way; they take milliseconds, a slow disk more.
_PATIENCE = 2.0


class Closable(Protocol):
    """A connection that opens itself again."""

    def close(self) -> None: ...


class Crossing:
    """Threads going through SQLite, and forks that must not meet them."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._inside: set[object] = set()
        #: ``leave(ticket)``: the thread is out of SQLite. Takes no lock, for a fork that waits for this holds it; and
        #: is one call of C, which no signal interrupts.
        self.leave = self._inside.discard
        self._connections: weakref.WeakSet[Closable] = weakref.WeakSet()

    def enter(self, ticket: object) -> None:
        """Waits while a fork is under way. To be called inside of a ``try`` with ``leave(ticket)`` at its end, lest a
        signal's exception leaves somebody inside for ever."""
        with self._gate:
            self._inside.add(ticket)

    def register(self, connection: Closable) -> None:
        """``connection`` is to be closed before forks. To be called inside."""
        self._connections.add(connection)

    def before_fork(self) -> None:
        """Let nobody in, wait until all are out, close all connections."""
        self._gate.acquire()
        deadline = time.monotonic() + _PATIENCE
        while self._inside:
            if time.monotonic() > deadline:
                return
            time.sleep(0.0001)
        for connection in list(self._connections):
            connection.close()

    def after_fork(self) -> None:
        """In the parent: go on."""
        self._gate.release()

    def after_fork_in_child(self) -> None:
        """Only the thread that forked lives on, and it is not inside."""
        self._gate = threading.Lock()
        self._inside.clear()


crossing = Crossing()
os.register_at_fork(
    before=crossing.before_fork,
    after_in_parent=crossing.after_fork,
    after_in_child=crossing.after_fork_in_child,
)
