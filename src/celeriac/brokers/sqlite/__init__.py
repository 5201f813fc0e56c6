"""SQLite: broker, result store, publisher, reader and caller in one file, with nothing to install.

``sqlite:///relative.db`` or ``sqlite:////absolute/path.db``. Any number of processes of one machine share a file. Read
``schema.sql`` first, then ``queues.py`` and ``records.py`` (what happens in the file), ``bells.py`` (waking) and
``*_port.py`` (the ports). Called by ``celeriac.client.resolver`` alone; what needs asyncio loads with a worker only.

No module here may have the name of a function here: importing it would put it in the function's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.brokers.sqlite.address import address

if TYPE_CHECKING:
    from celeriac.brokers.sqlite.broker_port import SQLiteBroker
    from celeriac.brokers.sqlite.caller_port import SQLiteCaller
    from celeriac.brokers.sqlite.dead_port import SQLiteDeadLetters
    from celeriac.brokers.sqlite.ledger_port import SQLiteLedger
    from celeriac.brokers.sqlite.publisher_port import SQLitePublisher
    from celeriac.brokers.sqlite.reader_port import SQLiteReader
    from celeriac.brokers.sqlite.scratch_port import SqliteScratch
    from celeriac.brokers.sqlite.store_port import SQLiteStore
    from celeriac.ports import AdapterOptions

__all__ = ["broker", "caller", "dead_letters", "ledger", "publisher", "reader", "scratch", "store"]


def broker(url: str, options: AdapterOptions) -> SQLiteBroker:
    """The ``Broker``, ``Unified`` and ``Bus`` of a file. Raises ``ImproperlyConfigured`` for a URL that names none."""
    from celeriac.brokers.sqlite.broker_port import SQLiteBroker

    return SQLiteBroker(address(url, options), options)


def store(url: str, options: AdapterOptions) -> SQLiteStore:
    """The ``ResultStore`` of a file; errors as ``broker``."""
    from celeriac.brokers.sqlite.store_port import SQLiteStore

    return SQLiteStore(address(url, options), options)


def publisher(url: str, options: AdapterOptions) -> SQLitePublisher:
    """The ``Publisher`` of a file; errors as ``broker``."""
    from celeriac.brokers.sqlite.publisher_port import SQLitePublisher

    return SQLitePublisher(address(url, options), options)


def reader(url: str, options: AdapterOptions) -> SQLiteReader:
    """The ``Reader`` of a file; errors as ``broker``."""
    from celeriac.brokers.sqlite.reader_port import SQLiteReader

    return SQLiteReader(address(url, options), options)


def ledger(url: str, options: AdapterOptions) -> SQLiteLedger:
    """The ``BlockingLedger`` of a file; errors as ``broker``."""
    from celeriac.brokers.sqlite.ledger_port import SQLiteLedger

    return SQLiteLedger(address(url, options), options)


def caller(url: str, options: AdapterOptions) -> SQLiteCaller:
    """The ``Caller`` of a file; errors as ``broker``."""
    from celeriac.brokers.sqlite.caller_port import SQLiteCaller

    return SQLiteCaller(address(url, options), options)


def dead_letters(url: str, options: AdapterOptions) -> SQLiteDeadLetters:
    """The ``DeadLetters`` of a file; errors as ``broker``."""
    from celeriac.brokers.sqlite.dead_port import SQLiteDeadLetters

    return SQLiteDeadLetters(address(url, options), options)


def scratch(url: str, options: AdapterOptions, name: str) -> SqliteScratch:
    """A place of its own for tests, in the same directory; errors as ``broker``."""
    from celeriac.brokers.sqlite.scratch_port import SqliteScratch

    return SqliteScratch(url, options, name)
