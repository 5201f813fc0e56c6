"""``memory://name``: broker, results, remote control and events of one process; the reference for all other adapters.

Everything with one name shares one ``Server``, whatever thread or event loop it is used from. Nothing survives the
process, and a forked child sees a copy of its own: for tests and for workers inside threads.
"""

from __future__ import annotations

from celeriac.brokers.memory.blocking_ports import MemoryCaller, MemoryPublisher, MemoryReader
from celeriac.brokers.memory.broker_port import MemoryBroker
from celeriac.brokers.memory.dead_port import MemoryDeadLetters
from celeriac.brokers.memory.ledger_port import MemoryLedger
from celeriac.brokers.memory.results import Watcher
from celeriac.brokers.memory.scratch_port import MemoryScratch
from celeriac.brokers.memory.shared import drop, server
from celeriac.brokers.memory.store_port import MemoryStore
from celeriac.ports import AdapterOptions, Clock

__all__ = [
    "broker",
    "caller",
    "dead_letters",
    "drop",
    "ledger",
    "publisher",
    "reader",
    "scratch",
    "server",
    "store",
    "watcher",
]


def broker(url: str, options: AdapterOptions, clock: Clock | None = None) -> MemoryBroker:
    """The broker of a name. ``clock`` replaces the clock of the shared server, for everybody."""
    return MemoryBroker(server(url, clock), options)


def store(url: str, options: AdapterOptions, clock: Clock | None = None) -> MemoryStore:
    """The result store of a name."""
    return MemoryStore(server(url, clock), options)


def publisher(url: str, options: AdapterOptions, clock: Clock | None = None) -> MemoryPublisher:
    """The blocking publisher of a name."""
    return MemoryPublisher(server(url, clock), options)


def reader(url: str, options: AdapterOptions, clock: Clock | None = None) -> MemoryReader:
    """The blocking reader of results of a name."""
    return MemoryReader(server(url, clock), options)


def dead_letters(url: str, options: AdapterOptions, clock: Clock | None = None) -> MemoryDeadLetters:
    """The blocking access to the dead letters of a name."""
    return MemoryDeadLetters(server(url, clock), options)


def ledger(url: str, options: AdapterOptions, clock: Clock | None = None) -> MemoryLedger:
    """The blocking ledger of a name."""
    return MemoryLedger(server(url, clock), options)


def caller(url: str, options: AdapterOptions, clock: Clock | None = None) -> MemoryCaller:
    """The blocking side of remote control of a name."""
    return MemoryCaller(server(url, clock), options)


def scratch(url: str, options: AdapterOptions, name: str) -> MemoryScratch:
    """A place of its own for tests."""
    return MemoryScratch(url, options, name)


def watcher() -> Watcher:
    """Somebody who waits for results without blocking a thread (simulations): ``server(url).results.watch``."""
    return Watcher()
