"""A place of its own on a PostgreSQL that is in use: a schema. For ``celeriac broker test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from celeriac.brokers.postgres.address import address
from celeriac.exceptions import OperationalError
from celeriac.ports import AdapterOptions

__all__ = ["PostgresScratch"]

#: A port of this machine on which nothing listens.
_NOBODY = 1


class PostgresScratch:
    """See ``celeriac.ports.Scratch``."""

    publisher_schedules = True
    one_server = True

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        self._address = address(url, options)
        self._schema = name.replace("-", "_")
        parts = urlsplit(url)
        query = [each for each in parse_qsl(parts.query) if each[0] != "schema"]
        self.url = urlunsplit(parts._replace(query=urlencode([*query, ("schema", self._schema)])))
        self.options: Mapping[str, Any] = {}
        self.what = f"the schemas {name.rpartition('-')[0].replace('-', '_')}_*"
        self.unreachable = f"postgresql://user:s3cret-word@127.0.0.1:{_NOBODY}/postgres"

    def exempt(self, beside: bool) -> Mapping[str, str]:
        """See ``Scratch.exempt``."""
        return {}

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        add = sql.SQL("SELECT {}.add(ARRAY[%s], ARRAY[0::smallint], ARRAY[NULL::float8], ARRAY[%s::bytea])")
        self._execute(add, queue, raw)

    def clear(self) -> None:
        """See ``Scratch.clear``."""
        self._execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE"))

    def _execute(self, statement: sql.SQL, *args: object) -> None:
        parameters: dict[str, Any] = dict(self._address.parameters)
        try:
            with psycopg.connect(**parameters, autocommit=True) as connection:
                connection.execute("SET client_min_messages = error")
                connection.execute(statement.format(sql.Identifier(self._schema)), args)
        except psycopg.Error as error:
            line = str(error).partition("\n")[0]
            raise OperationalError(f"{self._address.masked}: {line}") from error
