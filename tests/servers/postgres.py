"""A private PostgreSQL.

with PostgresServer() as server:
    server.execute("SELECT 1")
    server.kill()
    server.start()          # the same port, the same data
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.servers.base import HOST, Server

__all__ = ["PostgresServer", "postgres_programs"]

#: The account that runs the server when the tests run as root, for PostgreSQL refuses to.
_ACCOUNT = "postgres"
_INSTALLED = Path("/usr/lib/postgresql")


@lru_cache(maxsize=1)
def postgres_programs() -> Path | None:
    """The directory of ``postgres`` and ``initdb``, the newest version; None where there is none."""
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).parent
    versions = sorted(_INSTALLED.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def _as_account(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    return ["setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--clear-groups", "--", *command]


@lru_cache(maxsize=1)
def _template() -> Path:
    """A fresh cluster, made once in a test run: making one takes a second, copying it 0.05."""
    programs = postgres_programs()
    assert programs is not None, "PostgreSQL is not installed"
    parent = Path(tempfile.mkdtemp(prefix="celeriac-postgres-template-"))
    _hand_over(parent)
    command = [str(programs / "initdb"), "-D", str(parent / "data"), "-U", _ACCOUNT, "-A", "trust", "-E", "UTF8"]
    subprocess.run(
        _as_account([*command, "--no-sync", "--locale=C.UTF-8"]), check=True, capture_output=True, cwd=parent
    )
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return parent / "data"


def _hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, _ACCOUNT, _ACCOUNT)


class PostgresServer(Server):
    """One postgres. ``durable`` lets it write to the disk as it should, for tests that kill it; ``config`` takes more
    settings."""

    program = "postgres"
    #: SIGTERM would wait until the last client has gone.
    stop_signal = signal.SIGINT

    def __init__(self, *, durable: bool = False, config: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._durable = durable
        self._config = dict(config or {})
        _hand_over(self.directory)
        command = ["cp", "-r", str(_template()), str(self.data)]
        subprocess.run(_as_account(command), check=True, cwd=self.directory)

    @property
    def data(self) -> Path:
        """Where the cluster is."""
        return self.directory / "data"

    def url(
        self,
        *,
        port: int | None = None,
        user: str = _ACCOUNT,
        password: str = "",
        database: str = "postgres",
        **query: str,
    ) -> str:
        """The broker URL, through another port (a proxy's) when given."""
        account = f"{user}:{quote(password, safe='')}" if password else user
        options = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return f"postgresql://{account}@{HOST}:{port or self.port}/{database}{'?' if options else ''}{options}"

    def connect(self, database: str = "postgres", user: str = _ACCOUNT) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of its own, in autocommit; the caller closes it."""
        return psycopg.connect(
            host=HOST, port=self.port, user=user, dbname=database, autocommit=True, connect_timeout=10
        )

    def execute(self, statement: str, *args: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement; its rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode(), args or None)
            return cursor.fetchall() if cursor.description is not None else []

    def terminate_all(self) -> int:
        """End all sessions but the one that does it, as an administrator would; returns how many."""
        rows = self.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(rows[0][0])

    # -- inside

    def arguments(self) -> list[str]:
        programs = postgres_programs()
        assert programs is not None, "PostgreSQL is not installed"
        disk = "on" if self._durable else "off"
        config = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "fsync": disk,
            "full_page_writes": disk,
            "shared_buffers": "64MB",
            "max_connections": "250",
            "max_wal_size": "2GB",
            "logging_collector": "off",
            "log_destination": "stderr",
        } | self._config
        settings = [word for name, value in config.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(self.data), *settings]
        # The shell only sends its messages to a file of the tests', and is replaced by the server.
        return ["sh", "-c", f'exec "$@" 2>>{self.log_file}', "sh", *_as_account([*self._guard(), *command])]

    @staticmethod
    def _guard() -> list[str]:
        # A change of the account clears the wish to die with the test run: it is told again behind it.
        return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") and os.geteuid() == 0 else []

    def answers(self) -> bool:
        try:
            return self.execute("SELECT 1") == [(1,)]
        except psycopg.Error:  # not listening yet; starting up
            return False
