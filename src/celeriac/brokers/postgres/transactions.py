"""Publishing inside a transaction of the application: a message comes with its commit, or vanishes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.brokers.postgres.address import schema_name
from celeriac.brokers.postgres.rows import message_columns
from celeriac.brokers.postgres.statements import quoted
from celeriac.model.message import Message
from celeriac.ports import AdapterOptions

__all__ = ["publish_in"]


def publish_in(connection: Any, messages: Sequence[Message], options: AdapterOptions, *, url: str = "") -> None:
    """Write messages through a connection of psycopg, psycopg2, Django or SQLAlchemy (its DBAPI connection), in the
    transaction that is open there. Commits nothing, and leaves errors as the driver raises them.

    Whoever waits for messages is told at the commit. The schema must be there. A header that cannot be encoded raises
    ``TypeError`` or ``ValueError`` before anything is written. ``url`` is the broker's: it may name the schema.
    """
    columns = message_columns(messages)
    if not columns[0]:
        return
    name = quoted(schema_name(url, options))
    cursor = connection.cursor()
    try:
        cursor.execute(
            f"SELECT {name}.add(%s::text[], %s::smallint[], %s::float8[], %s::bytea[]), {name}.announce(%s::text[])",
            (*columns, sorted(set(columns[0]))),
        )
    finally:
        cursor.close()
