"""What all users of one ``memory://`` name share, and the table of names.

One lock guards queues, results, chords, rules and topics, so that finishing a plan is one atomic step. No user code and
nothing slow runs under it. Called by the classes behind the ports; knows nothing of tasks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from celeriac.brokers.memory.chords import Chords
from celeriac.brokers.memory.ledger_table import LedgerTable
from celeriac.brokers.memory.limits import Limits
from celeriac.brokers.memory.queues import Queues
from celeriac.brokers.memory.results import Results
from celeriac.brokers.memory.rules import RuleTable
from celeriac.brokers.memory.stages import Stages
from celeriac.brokers.memory.topics import Topics
from celeriac.clock import SystemClock
from celeriac.model.ledger import Change
from celeriac.ports import Clock, Traits

__all__ = ["Server", "drop", "server"]


class Server:
    """One name: the state, its lock and its clock."""

    __slots__ = (
        "chords",
        "clock",
        "ledger",
        "limits",
        "lock",
        "name",
        "queues",
        "results",
        "rules",
        "stages",
        "topics",
        "traits",
    )

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.lock = threading.Lock()
        self.queues = Queues()
        self.results = Results()
        self.chords = Chords(self.queues.leases)
        self.stages: Stages[tuple[str, bytes, int, float | None]] = Stages()
        self.rules = RuleTable()
        self.limits = Limits(self.queues, self.rules.pauses)
        self.topics = Topics()
        self.ledger = LedgerTable()
        self.traits = Traits(durable=False, native_delay=True, server=("memory", name))

    def read_ledger(self, keys: Sequence[str]) -> list[bytes | None]:
        """What stands under each key."""
        with self.lock:
            tick = self.clock.monotonic()
            return [self.ledger.read(key, tick) for key in keys]

    def change_ledger(self, changes: Sequence[Change]) -> list[bool]:
        """Make changes; for each whether it was made."""
        with self.lock:
            tick = self.clock.monotonic()
            return [self.ledger.change(change, tick) for change in changes]


_servers: dict[str, Server] = {}
_table = threading.Lock()


def server(url: str, clock: Clock | None = None) -> Server:
    """The server of a URL's name, made at its first use. ``clock`` replaces its clock."""
    name = _name(url)
    with _table:
        found = _servers.get(name)
        if found is None:
            found = _servers[name] = Server(name, clock or SystemClock())
        elif clock is not None:
            found.clock = clock
        return found


def drop(url: str) -> None:
    """Forget a name and all it holds; whoever still uses it keeps the old one."""
    with _table:
        _servers.pop(_name(url), None)


def _name(url: str) -> str:
    parts = urlsplit(url)
    return (parts.netloc.rpartition("@")[2] + parts.path).strip("/")


def _before_fork() -> None:
    _table.acquire()
    for each in _servers.values():
        each.lock.acquire()


def _after_fork() -> None:
    for each in _servers.values():
        each.lock.release()
    _table.release()


def _after_fork_in_child() -> None:
    # Whoever waited did so in threads that the child does not have.
    for each in _servers.values():
        each.queues.forget_waiters()
        each.results.forget_waiters()
        each.topics.forget_listeners()
    _after_fork()


# A lock that another thread holds at the moment of a fork would stay locked in the child for ever.
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
