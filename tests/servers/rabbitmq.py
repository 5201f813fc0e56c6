"""A private RabbitMQ node with an epmd of its own: own ports, own directory, ended by pid with the test run.

with RabbitServer() as server:
    url = server.url(server.new_vhost())
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from tests.servers.base import HOST, Server, free_port, tls_files, wait_until

__all__ = ["RabbitServer"]

_BIN = Path("/usr/lib/rabbitmq/bin")
_numbers = count(1)
#: Empties a virtual host: connections, queues, exchanges that are not the server's own.
_EMPTY = """
    [rabbit_networking:close_connection(element(9, Connection), "the test is over")
        || Connection <- rabbit_connection_tracking:list(Vhost)],
    Gone = lists:any(fun (_) -> rabbit_connection_tracking:list(Vhost) =:= [] orelse timer:sleep(10) =/= ok end,
        lists:seq(1, 50)),
    [(catch rabbit_amqqueue:delete(Queue, false, false, <<"test">>))  % it may just be going with its connection
        || Queue <- rabbit_amqqueue:list(Vhost)],
    [rabbit_exchange:delete(Name, false, <<"test">>)
        || Name = {resource, _, exchange, Text} <- rabbit_exchange:list_names(),
           element(2, Name) =:= Vhost, Text =/= <<>>, binary:longest_common_prefix([Text, <<"amq.">>]) < 4],
    {Gone, length(rabbit_amqqueue:list(Vhost))}
"""
#: Name, ready, held; a name as Erlang's text of bytes.
_ROW = re.compile(r"\{'?([^',{}]+)'?,\s*(\d+),\s*(\d+)\}")


class RabbitServer(Server):
    """One node. Starts empty; keeps its data between starts. ``config`` takes further lines of rabbitmq.conf;
    ``cores``: how many it uses, one where many servers share the machine."""

    program = "rabbitmq-server"
    start_seconds: ClassVar[float] = 180.0

    def __init__(self, *, tls: bool = False, config: Mapping[str, str] | None = None, cores: int = 1) -> None:
        super().__init__()
        self.tls = tls
        self.tls_port = free_port()
        self._cores = cores
        self._dist_port = free_port()
        self._epmd_port = free_port()
        self._config = dict(config or {})
        self._epmd: subprocess.Popen[bytes] | None = None
        #: Virtual hosts that served and are empty again.
        self._emptied: list[str] = []
        self.node = f"t{os.getpid()}x{next(_numbers)}@localhost"
        (self.directory / ".erlang.cookie").write_text("celeriactests")
        (self.directory / ".erlang.cookie").chmod(0o400)

    @staticmethod
    def installed() -> bool:
        """Whether it can be started here."""
        return (_BIN / "rabbitmq-server").exists() and all(map(shutil.which, ("erl_call", "epmd", "setpriv")))

    # -- use

    def url(self, vhost: str = "/", *, port: int | None = None, user: str = "guest", password: str = "guest") -> str:
        """The broker URL, through another port (a proxy's) when given."""
        account = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{account}@{HOST}:{port or self.port}/{quote(vhost, safe='')}"

    @property
    def tls_url(self) -> str:
        return f"amqps://guest:guest@{HOST}:{self.tls_port}/?ssl_ca_certs={quote(str(tls_files()[0]))}"

    def new_vhost(self, name: str = "") -> str:
        """A virtual host without anything in it, the user guest may do everything there."""
        if self._emptied and not name:
            return self._emptied.pop()
        name = name or f"v{next(_numbers)}"
        everything = ", ".join(['<<".*">>'] * 3)
        guest = f'<<"guest">>, <<"{name}">>, {everything}, <<"test">>'
        add = f'rabbit_vhost:add(<<"{name}">>, <<"test">>)'
        self.erl(f"{add}, rabbit_auth_backend_internal:set_permissions({guest})")
        return name

    def drop_vhost(self, name: str) -> None:
        """It is not used any more. Emptied, which takes a fifth of the time of a new one, it serves again; where that
        fails it is deleted."""
        if not self.running:
            return
        if self.erl(f'Vhost = <<"{name}">>, {_EMPTY}') == "{true, 0}":
            self._emptied.append(name)
        else:
            self.erl(f'rabbit_vhost:delete(<<"{name}">>, <<"test">>)')

    def add_user(self, name: str, vhost: str, configure: str, write: str, read: str) -> None:
        """Another user, with the password "secret", who may do this there."""
        rights = ", ".join(f"<<{_bytes(text)}>>" for text in (name, vhost, configure, write, read))
        self.erl(
            f'rabbit_auth_backend_internal:add_user(<<{_bytes(name)}>>, <<"secret">>, <<"test">>), '
            f'rabbit_auth_backend_internal:set_permissions({rights}, <<"test">>)'
        )

    def queues(self, vhost: str = "/") -> dict[str, tuple[int, int]]:
        """Name → messages that are ready, and that are held."""
        wanted = "[name, messages_ready, messages_unacknowledged]"
        rows = self.erl(
            # As atoms: erl_call shows the beginning of a long binary.
            "[{binary_to_atom(Name, utf8), Ready, Held} || "
            "[{name, {resource, _, queue, Name}}, {messages_ready, Ready}, {messages_unacknowledged, Held}]"
            f" <- rabbit_amqqueue:info_all(<<{_bytes(vhost)}>>, {wanted})]"
        )
        return {name: (int(a), int(b)) for name, a, b in _ROW.findall(rows)}

    def ctl(self, *words: str, timeout: float = 60.0) -> str:
        """rabbitmqctl; its output. Takes a second; ``erl`` is faster."""
        done = subprocess.run(
            [str(_BIN / "rabbitmqctl"), "-n", self.node, *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def erl(self, expression: str) -> str:
        """Evaluate Erlang on the node; the answer as text."""
        done = self._erl_call(expression)
        answer = done.stdout
        if done.returncode or not answer.startswith("{ok,"):
            raise RuntimeError(f"{expression}: {answer}{done.stderr}")
        return answer[5:-1].strip()

    def _erl_call(self, expression: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["erl_call", "-c", "celeriactests", "-n", self.node, "-e"],
            env=self.environment(),
            input=f"{expression}.\n",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def alarm(self, on: bool) -> None:
        """Let the node believe that its memory is full, or no longer."""
        self.erl(f"vm_memory_monitor:set_vm_memory_high_watermark({'0.0000001' if on else '0.6'})")

    # -- inside

    def _launch(self) -> None:
        if self._epmd is None or self._epmd.poll() is not None:
            self._epmd = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "epmd", "-port", str(self._epmd_port), "-address", HOST],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=self.environment(),
            )
            wait_until(lambda: _listens(self._epmd_port), 60, "epmd is ready")
        (self.directory / "rabbitmq.conf").write_text(self._configuration())
        super()._launch()

    def close(self) -> None:
        super().close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def _configuration(self) -> str:
        lines = {
            "listeners.tcp.1": f"{HOST}:{self.port}",
            "log.file": str(self.log_file),
            "log.file.level": "info",
            "vm_memory_high_watermark.relative": "0.6",
            "disk_free_limit.absolute": "1MB",
            "loopback_users": "none",
            "collect_statistics_interval": "60000",
        }
        if self.tls:
            certificate, key = map(str, tls_files())
            lines |= {
                "listeners.ssl.1": f"{HOST}:{self.tls_port}",
                "ssl_options.cacertfile": certificate,
                "ssl_options.certfile": certificate,
                "ssl_options.keyfile": key,
                "ssl_options.verify": "verify_none",
            }
        lines |= self._config
        return "".join(f"{name} = {value}\n" for name, value in lines.items())

    def arguments(self) -> list[str]:
        return [str(_BIN / "rabbitmq-server")]

    def environment(self) -> dict[str, str]:
        folder = self.directory
        own = {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-kernel inet_dist_use_interface {{127,0,0,1}} +S {self._cores}:{self._cores} +A 8"
                # How often a quorum queue tells how many messages it has, in milliseconds.
                " -rabbit quorum_tick_interval 500"
            ),
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            # Without a shell between us and the node: its pid is the one we know.
            "detached": "true",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return {**kept, **own}

    def answers(self) -> bool:
        if not _listens(self.port):
            return False
        try:
            return "true" in self.erl("rabbit:is_running()")
        except (RuntimeError, subprocess.SubprocessError):
            return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1.0).close()
    except OSError:
        return False
    return True


def _bytes(text: str) -> str:
    return ",".join(map(str, text.encode()))
