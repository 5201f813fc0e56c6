"""A private Redis with a replica and three sentinels that fail over within a second or two.

with RedisSentinels() as sentinels:
    sentinels.master.kill()
    sentinels.wait_for_master(other_than=...)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Self

from tests.servers.base import HOST, tls_files, wait_until
from tests.servers.redis import RedisServer

__all__ = ["RedisSentinels", "SentinelServer"]

#: Seconds: a sentinel that could not run for two seconds does nothing for thirty (TILT).
_LONG = 60.0


class SentinelServer(RedisServer):
    """One ``redis-server --sentinel``; keeps what it learnt in a file of its own."""

    program = "redis-sentinel"

    def __init__(self, lines: Sequence[str], *, password: str | None = None, tls: bool = False) -> None:
        super().__init__(password=password, tls=tls)
        self._lines = lines

    def arguments(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        if not path.exists():
            own = [
                f"port {0 if self.tls else self.port}",
                f"bind {HOST}",
                f"dir {self.directory}",
                f"logfile {self.log_file}",
            ]
            own += [f"requirepass {self.password}", f"sentinel sentinel-pass {self.password}"] if self.password else []
            if self.tls:
                certificate, key = tls_files()
                own += [f"tls-port {self.port}", f"tls-cert-file {certificate}", f"tls-key-file {key}"]
                own += [f"tls-ca-cert-file {certificate}", "tls-auth-clients no", "tls-replication yes"]
            path.write_text("\n".join([*own, *self._lines, ""]))
        return ["redis-server", str(path), "--sentinel"]


class RedisSentinels:
    """Two servers, a master and its replica, watched by three sentinels under the name ``tests``. ``down_after``:
    milliseconds after which a server that does not answer is down. A test without a failover gives more, or it has one
    when the machine stalls."""

    name = "tests"

    def __init__(
        self,
        *,
        password: str | None = None,
        sentinel_password: str | None = None,
        tls: bool = False,
        config: Mapping[str, str] | None = None,
        down_after: int = 500,
    ) -> None:
        self._down_after = down_after
        quick = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1", **(config or {})}
        if password:
            quick["masterauth"] = password
        if tls:
            quick["tls-replication"] = "yes"
        self._tls = tls
        self._password, self._sentinel_password = password, sentinel_password
        self.servers = [RedisServer(password=password, tls=tls, config=quick) for _ in range(2)]
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> Self:
        if self.sentinels:
            return self
        with contextlib.ExitStack() as started:
            started.callback(self.close)
            first, second = self.servers
            first.start(), second.start()
            second.command("REPLICAOF", HOST, first.port)
            wait_until(lambda: second.info("replication")["master_link_status"] == "up", 60)
            watch = [
                f"sentinel monitor {self.name} {HOST} {first.port} 2",
                f"sentinel down-after-milliseconds {self.name} {self._down_after}",
                f"sentinel failover-timeout {self.name} 4000",
            ]
            if self._password:
                watch.append(f"sentinel auth-pass {self.name} {self._password}")
            self.sentinels = [SentinelServer(watch, password=self._sentinel_password, tls=self._tls) for _ in range(3)]
            for sentinel in self.sentinels:
                sentinel.start()
            wait_until(self._met, _LONG, "the sentinels and the replica know each other")
            started.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close()

    # -- use

    def url(self, db: int = 0, **query: str) -> str:
        """Celery's form, ``?master_name=`` included."""
        account = f":{self._password}@" if self._password else ""
        options = "&".join(f"{name}={value}" for name, value in {"master_name": self.name, **query}.items())
        first, *others = (f"sentinel://{account}{HOST}:{each.port}" for each in self.sentinels)
        return ";".join([f"{first}?{options}", *others]) + f"/{db}"

    @property
    def master(self) -> RedisServer:
        """The server that most sentinels call the master."""
        ports = [self._told(sentinel) for sentinel in self.sentinels if sentinel.running]
        port = max(set(ports), key=ports.count)
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        master = self.master
        return next(server for server in self.servers if server is not master)

    def failed_over(self, old: RedisServer) -> RedisServer:
        """Wait for a master that is not ``old``, and takes writes; returns it."""
        other = next(server for server in self.servers if server is not old)
        wait_until(lambda: all(self._told(each) == other.port for each in self.sentinels), _LONG, "a failover")
        wait_until(lambda: other.info("replication")["role"] == "master", 60)
        return other

    def order_failover(self) -> None:
        """``SENTINEL FAILOVER``, as an operator gives it."""
        self.sentinels[0].command("SENTINEL", "FAILOVER", self.name)

    # -- inside

    def _told(self, sentinel: SentinelServer) -> int:
        return int(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])

    def _met(self) -> bool:
        def facts(sentinel: SentinelServer) -> dict[str, str]:
            flat = [word.decode() for word in sentinel.command("SENTINEL", "MASTER", self.name)]
            return dict(zip(flat[::2], flat[1::2], strict=True))

        found = [facts(sentinel) for sentinel in self.sentinels]
        return all(each["num-slaves"] == "1" and each["num-other-sentinels"] == "2" for each in found)
