"""A private Redis.

with RedisServer(appendonly=True) as server:
    server.kill()
    server.start()          # the same port, the same data
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import hiredis

from tests.servers.base import HOST, Server, tls_files

__all__ = ["RedisServer"]


class RedisServer(Server):
    """One redis-server. Starts empty and without persistence unless told otherwise; keeps its data between starts.

    `config` takes further lines of redis.conf.
    """

    program = "redis-server"

    def __init__(
        self,
        *,
        appendonly: bool = False,
        maxmemory: str | None = None,
        unixsocket: bool = False,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.user = user
        self.password = password
        self.tls = tls
        self.unixsocket = self.directory / "redis.sock" if unixsocket else None
        self._appendonly = appendonly
        self._maxmemory = maxmemory
        self._config = dict(config or {})

    # -- use

    def url(self, db: int = 0, *, port: int | None = None) -> str:
        """The broker URL, through another port (a proxy's) when given."""
        user = quote(self.user or "", safe="")
        account = f"{user}:{quote(self.password, safe='')}@" if self.password else ""
        if self.unixsocket is not None and port is None:
            return f"redis+socket://{account}{self.unixsocket}?virtual_host={db}"
        address = f"{account}{HOST}:{port or self.port}/{db}"
        if self.tls:
            return f"rediss://{address}?ssl_cert_reqs=required&ssl_ca_certs={quote(str(tls_files()[0]))}"
        return f"redis://{address}"

    def command(self, *words: str | bytes | int | float, db: int = 0, timeout: float = 10.0) -> Any:
        """Run one command on a connection of its own; strings come back as bytes, an error reply is raised."""
        with self._connect(timeout) as connection:
            if self.password:
                self._call(connection, "AUTH", *([self.user] if self.user else []), self.password)
            if db:
                self._call(connection, "SELECT", db)
            return self._call(connection, *words)

    def info(self, section: str = "everything") -> dict[str, str]:
        """INFO as a dict, e.g. `total_commands_processed`, `connected_clients`, `used_memory`."""
        lines = self.command("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    # -- inside

    def arguments(self) -> list[str]:
        config = {
            "bind": HOST,
            "port": "0" if self.tls else str(self.port),
            "dir": str(self.directory),
            "logfile": str(self.log_file),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._appendonly else "no",
            # With "everysec" what is acknowledged while the disk is slow is lost by a kill.
            "appendfsync": "always",
            "enable-debug-command": "yes",
        }
        if self._maxmemory:
            config |= {"maxmemory": self._maxmemory, "maxmemory-policy": "noeviction"}
        if self.unixsocket:
            config["unixsocket"] = str(self.unixsocket)
        if self.password and self.user:
            config["user"] = f"{self.user} on >{self.password} ~* &* +@all"
        elif self.password:
            config["requirepass"] = self.password
        if self.tls:
            certificate, key = map(str, tls_files())
            config |= {"tls-port": str(self.port), "tls-cert-file": certificate, "tls-key-file": key}
            config |= {"tls-ca-cert-file": certificate, "tls-auth-clients": "no"}
        config |= self._config
        arguments: list[str] = []
        for name, value in config.items():
            arguments += [f"--{name}", *(value.split() if name == "user" else [value])]
        return ["redis-server", *arguments]

    def answers(self) -> bool:
        try:
            return bool(self.command("PING", timeout=1.0) == b"PONG")
        except (OSError, hiredis.ReplyError):  # not listening yet; LOADING
            return False

    def _connect(self, timeout: float) -> socket.socket:
        connection = socket.create_connection((HOST, self.port), timeout)
        if not self.tls:
            return connection
        context = ssl.create_default_context(cafile=str(tls_files()[0]))
        return context.wrap_socket(connection, server_hostname=HOST)

    @staticmethod
    def _call(connection: socket.socket, *words: str | bytes | int | float) -> Any:
        connection.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub means tuple[..., ...]
        reader = hiredis.Reader()
        while (reply := reader.gets()) is False:
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionResetError("redis-server closed the connection")
            reader.feed(chunk)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply
