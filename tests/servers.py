"""Private servers for the tests: own port, own directory, own process, ended by its own pid.

Knows nothing of Celeriac. Used through the fixtures of conftest.py, or directly by fault tests:

    with RedisServer(appendonly=True) as server:
        server.kill()
        server.start()          # the same port, the same data
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import hiredis

__all__ = ["HOST", "RedisServer", "eventually", "free_port", "tls_files", "wait_until"]

HOST = "127.0.0.1"
START_SECONDS = 15.0
POLL_SECONDS = 0.005

T = TypeVar("T")
Describe = str | Callable[[], object]


def _overdue(describe: Describe, timeout: float) -> TimeoutError:
    what = describe if isinstance(describe, str) else describe()
    return TimeoutError(f"not within {timeout:g} s: {what}")


def wait_until(predicate: Callable[[], T], timeout: float = 10.0, describe: Describe = "the condition holds") -> T:
    """Ask until the answer is true, and return it. `describe` may be a function that tells the state at the end."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise _overdue(describe, timeout)
        time.sleep(POLL_SECONDS)
    return answer


async def eventually(
    predicate: Callable[[], T], timeout: float = 10.0, describe: Describe = "the condition holds"
) -> T:
    """`wait_until` for coroutines: the event loop goes on meanwhile."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise _overdue(describe, timeout)
        await asyncio.sleep(POLL_SECONDS)
    return answer


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@lru_cache(maxsize=1)
def tls_files() -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key, made once a run; the certificate is its own CA."""
    directory = Path(tempfile.mkdtemp(prefix="celeriac-tls-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    certificate, key = directory / "cert.pem", directory / "key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"]
    command = ["openssl", "req", "-x509", *curve, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class RedisServer:
    """One redis-server. Starts empty and without persistence unless told otherwise; keeps its data between starts.

    `config` takes further lines of redis.conf. The server dies with the thread that started it (PDEATHSIG), so a test
    run that is killed leaves nothing behind: start it from a thread that lives as long as it shall.
    """

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
        self.user = user
        self.password = password
        self.tls = tls
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="celeriac-redis-"))
        self.unixsocket = self.directory / "redis.sock" if unixsocket else None
        self._appendonly = appendonly
        self._maxmemory = maxmemory
        self._config = dict(config or {})
        self._process: subprocess.Popen[bytes] | None = None

    # -- life

    def start(self) -> Self:
        """Start and wait until the server answers, data loaded."""
        if self.running:
            return self
        started_before = (self.directory / "redis.log").exists()
        while True:
            self._launch()
            try:
                wait_until(self._ready, START_SECONDS, lambda: f"redis-server is ready\n{self.log()}")
            except ChildProcessError:
                if started_before or "Address already in use" not in self.log():
                    raise
                self.port = free_port()  # somebody was faster
            else:
                return self

    def stop(self) -> None:
        """End in good order (SIGTERM), by force when that takes too long. The data stay where they are."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reap()

    def kill(self) -> None:
        """SIGKILL, as an OOM killer or a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove the data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

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

    def log(self, lines: int = 12) -> str:
        """The end of the server's own log."""
        path = self.directory / "redis.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    # -- inside

    def _arguments(self) -> list[str]:
        config = {
            "bind": HOST,
            "port": "0" if self.tls else str(self.port),
            "dir": str(self.directory),
            "logfile": str(self.directory / "redis.log"),
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
        return arguments

    def _launch(self) -> None:
        # setpriv replaces itself by the server, so the pid is the server's.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        command = [*guard, "redis-server", *self._arguments()]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)

    def _ready(self) -> bool:
        if not self.running:
            self._reap()
            raise ChildProcessError(f"redis-server ended at its start\n{self.log()}")
        try:
            return bool(self.command("PING", timeout=1.0) == b"PONG")
        except (OSError, hiredis.ReplyError):  # not listening yet; LOADING
            return False

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

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
