"""What every private server shares: a free port, a process that dies with the test run, how to wait.

Knows no server in particular.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self, TypeVar

__all__ = [
    "HOST",
    "POLL_SECONDS",
    "Server",
    "eventually",
    "free_port",
    "promptly",
    "tls_files",
    "wait_until",
    "within",
]

HOST = "127.0.0.1"
POLL_SECONDS = 0.005
#: How often what has to be quick may be late: a machine that stalls holds one try up, what is slow is late each time.
_TRIES = 4
#: Between two questions, once a wait is long or the question itself takes its time.
_POLL_AT_MOST = 0.03

T = TypeVar("T")
Describe = str | Callable[[], object]


def _overdue(describe: Describe, timeout: float) -> TimeoutError:
    what = describe if isinstance(describe, str) else describe()
    return TimeoutError(f"not within {timeout:g} s: {what}")


def wait_until(predicate: Callable[[], T], timeout: float = 60.0, describe: Describe = "the condition holds") -> T:
    """Ask until the answer is true, and return it. `describe` may be a function that tells the state at the end.

    The longer it has waited and the dearer the question, the less often it asks: what is waited for needs the machine.
    The last question is asked when the time is over: an answer that took long may be out of date.
    """
    asked = began = time.monotonic()
    deadline = began + timeout
    while not (answer := predicate()):
        now = time.monotonic()
        if asked > deadline:
            raise _overdue(describe, timeout)
        time.sleep(max(POLL_SECONDS, min((now - began) / 50, _POLL_AT_MOST), min(4 * (now - asked), _POLL_AT_MOST)))
        asked = time.monotonic()
    return answer


async def eventually(
    predicate: Callable[[], T], timeout: float = 60.0, describe: Describe = "the condition holds"
) -> T:
    """`wait_until` for coroutines: the event loop goes on meanwhile."""
    asked = time.monotonic()
    deadline = asked + timeout
    while not (answer := predicate()):
        if asked > deadline:
            raise _overdue(describe, timeout)
        await asyncio.sleep(POLL_SECONDS)
        asked = time.monotonic()
    return answer


def within(seconds: float, attempt: Callable[[], T]) -> T:
    """The answer of ``attempt``, which may be repeated and is to take less than ``seconds``: of some tries one does."""
    took: list[float] = []
    while len(took) < _TRIES:
        began = time.monotonic()
        answer = attempt()
        took.append(time.monotonic() - began)
        if took[-1] < seconds:
            return answer
    raise AssertionError(f"not once within {seconds:g} s: {took}")


async def promptly(seconds: float, attempt: Callable[[], Awaitable[T]]) -> T:
    """`within` for coroutines."""
    took: list[float] = []
    while len(took) < _TRIES:
        began = time.monotonic()
        answer = await attempt()
        took.append(time.monotonic() - began)
        if took[-1] < seconds:
            return answer
    raise AssertionError(f"not once within {seconds:g} s: {took}")


@lru_cache(maxsize=1)
def _ports() -> Iterator[int]:
    """Ports for servers, below those that a system hands out for outgoing connections: else such a connection takes the
    port of a server that is down for a moment. Test processes that run beside each other have different ones."""
    ports = list(range(16_000 + os.getpid() % 8, 32_000, 8))
    random.SystemRandom().shuffle(ports)
    return itertools.cycle(ports)


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago, another one each time."""
    for port in _ports():
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:  # somebody has it
                continue
            return port
    raise AssertionError("unreachable")


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


class Server:
    """One server process. Keeps its data between starts; ended by its own pid.

    A subclass says how it is launched (``arguments``), and when it answers (``answers``). The server dies with the
    thread that started it (PDEATHSIG), so a test run that is killed leaves nothing behind: start it from a thread that
    lives as long as it shall.
    """

    #: What it is called in messages, and its log file in ``directory``.
    program: ClassVar[str]
    start_seconds: ClassVar[float] = 15.0
    #: What ends it in good order.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"celeriac-{self.program}-"))
        self._process: subprocess.Popen[bytes] | None = None

    # -- what a subclass says

    def arguments(self) -> Sequence[str]:
        """The command that starts it in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str] | None:
        """Its environment; None: that of the tests."""
        return None

    def answers(self) -> bool:
        """Whether it serves, data loaded."""
        raise NotImplementedError

    # -- life

    def start(self) -> Self:
        """Start and wait until the server answers, data loaded."""
        if self.running:
            return self
        started_before = self.log_file.exists()
        while True:
            self._launch()
            try:
                wait_until(self._ready, self.start_seconds, lambda: f"{self.program} is ready\n{self.log()}")
            except ChildProcessError:
                if started_before or "Address already in use" not in self.log():
                    raise
                self.port = free_port()  # somebody was faster
            else:
                return self

    def stop(self) -> None:
        """End in good order, by force when that takes too long. The data stay where they are."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
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

    @property
    def log_file(self) -> Path:
        return self.directory / f"{self.program}.log"

    def log(self, lines: int = 12) -> str:
        """The end of the server's own log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    # -- inside

    def _launch(self) -> None:
        # setpriv replaces itself by the server, so the pid is the server's.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [*guard, *self.arguments()],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
            env=self.environment(),
            cwd=self.directory,  # whatever it leaves behind when it crashes
        )

    def _ready(self) -> bool:
        if not self.running:
            self._reap()
            raise ChildProcessError(f"{self.program} ended at its start\n{self.log()}")
        return self.answers()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)
