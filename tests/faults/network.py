"""Machines on a switch, made of namespaces: each has its network, its name, its monotonic clock and its /dev/shm.

    with Network() as network:
        broker, worker = network.host("broker"), network.host("a")
        network.cut(worker)                 # its packets are dropped without a word
        network.heal(worker)

The namespaces have no names: each is held by a process that dies with the test run (PDEATHSIG), and with the last
process in it the kernel takes the namespace away, its interfaces and addresses too. So there is nothing to sweep, and
no address that could collide with another run's or the machine's. Knows nothing of brokers and workers.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.relay import Line

__all__ = ["Host", "Network", "obstacle"]

ROOT = Path(__file__).parents[2]
_LIFE = ("setpriv", "--pdeathsig", "KILL")
_CLONE_NEWNET = 0x40000000
_PREFIX = "10.77.0"
#: What each host does before it is there: the lines are shell, ``$0`` its name.
_SETTLE = 'mount -t tmpfs tmpfs /dev/shm && ip link set lo up && hostname "$0" && echo $$ && exec sleep infinity'
#: The switch: what comes from hosts in ``mute`` or goes to hosts in ``deaf`` is dropped.
_SWITCH = """
table bridge cuts {
    set mute { type ifname; }
    set deaf { type ifname; }
    chain forward {
        type filter hook forward priority 0;
        iifname @mute drop
        oifname @deaf drop
    }
}
"""
#: Private servers listen on the loopback address alone: whoever calls the host is led there, as if from there.
_INWARD = """
table ip inward {
    chain there { type nat hook prerouting priority -100; iifname "eth0" tcp dport 1024-65535 dnat to 127.0.0.1; }
    chain as_local { type nat hook input priority 100; ip daddr 127.0.0.1 iifname "eth0" snat to 127.0.0.1; }
}
"""


@functools.cache
def obstacle() -> str:
    """Why there can be no such network here; empty when there can."""
    if os.geteuid():
        return "machines of their own need root"
    for program in ("ip", "nft", "nsenter", "setpriv", "unshare"):
        if shutil.which(program) is None:
            return f"machines of their own need the program {program}"
    try:
        with Network() as network:
            network.host("probe")
    except OSError as error:
        return f"machines of their own are not to be had: {error}"
    return ""


def _run(*command: str, stdin: str = "") -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


class Host:
    """One machine; ``enter`` is the command that runs another one there."""

    def __init__(self, name: str, address: str, monotonic: int) -> None:
        self.name = name
        self.address = address
        spaces = ["--net", "--uts", "--mount", "--time", f"--monotonic={monotonic}", f"--boottime={monotonic}"]
        self._holder = subprocess.Popen(
            [*_LIFE, "unshare", *spaces, "--kill-child", "sh", "-c", _SETTLE, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        line = self._holder.stdout.readline().strip()
        if not line:
            raise OSError(self._holder.stderr.read().strip())
        self.pid = int(line)
        #: In one network only: for ``ip`` and ``nft``, which need nothing else of the host.
        self._net = ("nsenter", f"--target={self.pid}", "--net")

    @property
    def enter(self) -> Sequence[str]:
        spaces = ("--net", "--uts", "--mount", "--time")
        return ("nsenter", f"--target={self.pid}", *spaces, f"--wd={ROOT}", "--no-fork")

    def run(self, *command: str, stdin: str = "") -> None:
        """A command in the host's network."""
        _run(*self._net, *command, stdin=stdin)

    @contextmanager
    def visit(self) -> Iterator[None]:
        """This thread is on that host meanwhile: its new sockets, threads and processes, not those it has."""
        setns = ctypes.CDLL(None, use_errno=True).setns
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if setns(there, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")
            try:
                yield
            finally:
                assert setns(home, _CLONE_NEWNET) == 0
        finally:
            os.close(home)
            os.close(there)

    def processes(self) -> list[int]:
        """Everything that runs there, whoever started it."""
        try:
            mine = os.stat(f"/proc/{self.pid}/ns/net").st_ino
        except OSError:
            return []
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.stat(f"/proc/{entry}/ns/net").st_ino == mine:
                    found.append(int(entry))
            except OSError:  # it has just ended
                continue
        return [pid for pid in found if pid != os.getpid()]

    def end(self) -> None:
        """SIGKILL everything there, its holder last."""
        for pid in [*self.processes(), self._holder.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._holder.wait(30)
        for pipe in (self._holder.stdout, self._holder.stderr):
            assert pipe is not None
            pipe.close()


class Network:
    """A switch and its hosts. Everything ends with the block."""

    def __init__(self) -> None:
        self._over = ExitStack()
        self.hosts: list[Host] = []
        self._switch: Host

    def __enter__(self) -> Self:
        with ExitStack() as started:
            self._switch = Host("switch", "", 0)
            started.callback(self._switch.end)
            self._switch.run("ip", "link", "add", "name", "br0", "type", "bridge")
            self._switch.run("ip", "link", "set", "br0", "up")
            self._switch.run("nft", "-f", "-", stdin=_SWITCH)
            self._over = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.close()

    def host(self, name: str, *, monotonic: int = 0, line: Line | None = None) -> Host:
        """A host whose monotonic clock is ahead of the machine's by so many seconds, on a cable of its own, or on a bad
        line."""
        address = f"{_PREFIX}.{len(self.hosts) + 1}"
        host = Host(name, address, monotonic)
        self._over.callback(host.end)
        if line is None:
            self._switch.run(
                *("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            )
        else:
            self._over.callback(line.lay(self._switch.pid, name, host.pid, "eth0").close)
        self._switch.run("ip", "link", "set", "dev", name, "master", "br0", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("sysctl", "-q", "-w", "net.ipv4.conf.eth0.route_localnet=1")
        host.run("nft", "-f", "-", stdin=_INWARD)
        self.hosts.append(host)
        return host

    def cut(self, host: Host, *, sends: bool = False, hears: bool = False) -> None:
        """Drop what it sends and what is sent to it; with ``sends`` or ``hears`` it still does that."""
        for name, still in (("mute", sends), ("deaf", hears)):
            if not still:
                self._switch.run("nft", "add", "element", "bridge", "cuts", name, f'{{ "{host.name}" }}')

    def heal(self) -> None:
        """Nobody is cut off any more."""
        for name in ("mute", "deaf"):
            self._switch.run("nft", "flush", "set", "bridge", "cuts", name)

    def vanish(self, host: Host) -> None:
        """Pull the cable, then the plug: nobody hears a last word."""
        self._switch.run("ip", "link", "set", "dev", host.name, "down")
        host.end()
