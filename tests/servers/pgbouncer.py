"""A private PgBouncer before a private PostgreSQL, in transaction mode.

with PgBouncerServer(postgres.port) as bouncer:
    bouncer.url(listen="false")
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests.servers.base import HOST, Server

__all__ = ["PgBouncerServer", "pgbouncer_program"]

#: The account that runs it when the tests run as root, for it refuses to.
_ACCOUNT = "postgres"


def pgbouncer_program() -> str | None:
    """The program; Debian keeps it off the path of others than root. None where there is none."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class PgBouncerServer(Server):
    """One pgbouncer before the PostgreSQL at ``upstream``, with ``pool_size`` connections to it; ``config`` takes more
    settings."""

    program = "pgbouncer"
    #: SIGTERM ends it at once in this version and waits for its clients in later ones.
    stop_signal = signal.SIGINT

    def __init__(self, upstream: int, *, pool_size: int = 2, config: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._upstream = upstream
        self._pool_size = pool_size
        self._config = dict(config or {})

    def url(self, *, database: str = "postgres", **query: str) -> str:
        """The broker URL."""
        options = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return f"postgresql://postgres@{HOST}:{self.port}/{database}{'?' if options else ''}{options}"

    def show(self, what: str) -> list[dict[str, object]]:
        """Rows of its console: ``show("pools")``."""
        with self._console() as connection:
            cursor = connection.execute(f"SHOW {what}".encode())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    # -- inside

    def _console(self) -> psycopg.Connection[tuple[object, ...]]:
        # Its console knows only the simple protocol.
        return psycopg.connect(
            host=HOST, port=self.port, user="postgres", dbname="pgbouncer", autocommit=True, connect_timeout=5,
            cursor_factory=psycopg.ClientCursor,
        )  # fmt: skip

    def _write(self) -> Path:
        settings = {
            "listen_addr": HOST,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "admin_users": "postgres",
            "pool_mode": "transaction",
            "default_pool_size": str(self._pool_size),
            "max_client_conn": "200",
        } | self._config
        lines = [
            "[databases]",
            f"* = host={HOST} port={self._upstream} user=postgres",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        path = self.directory / "pgbouncer.ini"
        path.write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            shutil.chown(self.directory, _ACCOUNT, _ACCOUNT)
            shutil.chown(path, _ACCOUNT, _ACCOUNT)
        return path

    def arguments(self) -> list[str]:
        program = pgbouncer_program()
        assert program is not None, "PgBouncer is not installed"
        command = [program, "-q", str(self._write())]
        if os.geteuid() == 0:
            # A change of the account clears the wish to die with the test run: it is told again behind it.
            account = ["setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--clear-groups", "--"]
            command = [*account, "setpriv", "--pdeathsig", "KILL", "--", *command]
        # The shell only sends its messages to a file of the tests', and is replaced by the server.
        return ["sh", "-c", f'exec "$@" 2>>{self.log_file}', "sh", *command]

    def answers(self) -> bool:
        try:
            return bool(self.show("version"))
        except psycopg.Error:  # not listening yet
            return False
