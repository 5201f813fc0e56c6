"""PostgreSQL: broker, result store, publisher, reader and caller in one database; needs psycopg 3.

``postgresql://user@host/database``, also ``postgres://``. Everything is in one schema (``celeriac``). Read
``migrations/0001.sql`` first, then ``sql/queues.sql`` and ``sql/settling.sql`` (what happens in the database),
``sql/waking.sql``, ``claims.py`` (waiting) and ``*_port.py`` (the ports). Called by ``celeriac.client.resolver`` alone;
what needs asyncio loads with a worker only.

No module here may have the name of a function here: importing it would put it in the function's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from celeriac.brokers.postgres.broker_port import PostgresBroker
    from celeriac.brokers.postgres.caller_port import PostgresCaller
    from celeriac.brokers.postgres.dead_port import PostgresDeadLetters
    from celeriac.brokers.postgres.ledger_port import PostgresLedger
    from celeriac.brokers.postgres.publisher_port import PostgresPublisher
    from celeriac.brokers.postgres.reader_port import PostgresReader
    from celeriac.brokers.postgres.scratch_port import PostgresScratch
    from celeriac.brokers.postgres.store_port import PostgresStore
    from celeriac.model.message import Message
    from celeriac.ports import AdapterOptions

__all__ = [
    "broker",
    "caller",
    "dead_letters",
    "ledger",
    "migrate_schema",
    "publish_in",
    "publisher",
    "reader",
    "scratch",
    "store",
]


def broker(url: str, options: AdapterOptions) -> PostgresBroker:
    """The ``Broker`` and all that goes with it. Raises ``ImproperlyConfigured`` for a URL that cannot be one."""
    from celeriac.brokers.postgres.address import address
    from celeriac.brokers.postgres.broker_port import PostgresBroker

    return PostgresBroker(address(url, options), options)


def store(url: str, options: AdapterOptions) -> PostgresStore:
    """The ``ResultStore``; errors as ``broker``."""
    from celeriac.brokers.postgres.address import address
    from celeriac.brokers.postgres.store_port import PostgresStore

    return PostgresStore(address(url, options), options)


def publisher(url: str, options: AdapterOptions) -> PostgresPublisher:
    """The ``Publisher``; errors as ``broker``."""
    from celeriac.brokers.postgres.address import address
    from celeriac.brokers.postgres.publisher_port import PostgresPublisher

    return PostgresPublisher(address(url, options), options)


def reader(url: str, options: AdapterOptions) -> PostgresReader:
    """The ``Reader``; errors as ``broker``."""
    from celeriac.brokers.postgres.address import address
    from celeriac.brokers.postgres.reader_port import PostgresReader

    return PostgresReader(address(url, options), options)


def ledger(url: str, options: AdapterOptions) -> PostgresLedger:
    """The ``BlockingLedger``; errors as ``broker``."""
    from celeriac.brokers.postgres.address import address
    from celeriac.brokers.postgres.ledger_port import PostgresLedger

    return PostgresLedger(address(url, options), options)


def caller(url: str, options: AdapterOptions) -> PostgresCaller:
    """The ``Caller``; errors as ``broker``."""
    from celeriac.brokers.postgres.address import address
    from celeriac.brokers.postgres.caller_port import PostgresCaller

    return PostgresCaller(address(url, options), options)


def dead_letters(url: str, options: AdapterOptions) -> PostgresDeadLetters:
    """The ``DeadLetters``; errors as ``broker``."""
    from celeriac.brokers.postgres.address import address
    from celeriac.brokers.postgres.dead_port import PostgresDeadLetters

    return PostgresDeadLetters(address(url, options), options)


def publish_in(connection: Any, messages: Sequence[Message], options: AdapterOptions, *, url: str = "") -> None:
    """Publish inside a transaction of the application (transactions.py)."""
    from celeriac.brokers.postgres import transactions

    transactions.publish_in(connection, messages, options, url=url)


def migrate_schema(url: str, options: AdapterOptions) -> tuple[int, int]:
    """Make the schema, or bring it to this version; the version before and the one now. Raises
    ``OperationalError``."""
    from celeriac.brokers.postgres import schema
    from celeriac.brokers.postgres.address import address

    return schema.bring_up(address(url, options), by_force=True)


def scratch(url: str, options: AdapterOptions, name: str) -> PostgresScratch:
    """A place of its own for tests: a schema; errors as ``broker``."""
    from celeriac.brokers.postgres.scratch_port import PostgresScratch

    return PostgresScratch(url, options, name)
