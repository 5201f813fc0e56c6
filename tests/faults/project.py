"""The app under fault: tasks that write down each start and end, apart from the queue that is tested.

``celeriac -A tests.faults.project worker`` finds ``app``, made from the environment that ``fleet.py`` sets; tests make
theirs by ``make_app``. Lines of the journal are appended in one write each, so they survive a SIGKILL of their writer.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celeriac import Celery
from tests.faults import limited
from tests.views import QueueOnly  # noqa: F401 - the URLs queues+...

__all__ = ["CLOCK", "CONF", "FUTURE", "JOURNAL", "OFF", "make_app"]

#: Names of the environment variables that a worker reads: settings as JSON, and the journal's path.
CONF = "FAULTS_CONF"
JOURNAL = "FAULTS_JOURNAL"
#: Where set: the worker knows the task ``faults.future``.
FUTURE = "FAULTS_FUTURE"
#: Where set: a file with the seconds by which the wall clock of this process is off, looked at all the time.
CLOCK = "FAULTS_CLOCK"

#: The seconds by which libfaketime makes the wall clock of this process wrong: the journal tells the true time.
OFF = "FAULTS_OFF"

_clock, _off = time.time, float(os.environ.get(OFF, "0"))


def _true_time() -> float:
    return _clock() - _off


_PAUSE = 0.005
_journal = -1


def note(kind: str, request: Any, name: str = "") -> None:
    """Append one line: kind, task id or ``name``, pid, time, retries, whether it was redelivered."""
    global _journal
    if _journal < 0:
        _journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    redelivered = bool((request.delivery_info or {}).get("redelivered"))
    name = (name or request.id).encode("unicode_escape").decode()  # one with a line break must not make a line
    line = f"{kind}\t{name}\t{os.getpid()}\t{_true_time():.6f}\t{request.retries}\t{redelivered:d}\n"
    os.write(_journal, line.encode())


def work(self: Any, number: int, milliseconds: float) -> int:
    """Sleep, and return the number."""
    note("start", self.request)
    time.sleep(milliseconds / 1000)
    note("end", self.request)
    return number


def gated(self: Any, folder: str, seconds: float = 30.0) -> int:
    """Wait for the file that is named after this process, or for ``all``; return the pid."""
    note("start", self.request)
    deadline = time.monotonic() + seconds
    gates = Path(folder, str(os.getpid())), Path(folder, "all")
    while not any(gate.exists() for gate in gates) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    note("end", self.request)
    return os.getpid()


def die(self: Any, how: str) -> None:
    """End this process without a word."""
    note("start", self.request)
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    else:
        os.kill(os.getpid(), getattr(signal, how))
    time.sleep(30)


def hold(self: Any, number: int, seconds: float) -> int:
    """Sleep in C without letting go of the interpreter: no other thread of the process runs."""
    note("start", self.request)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    note("end", self.request)
    return number


def again(self: Any, number: int) -> int:
    """Fail once, retry at once, then return the number."""
    note("start", self.request)
    if self.request.retries == 0:
        raise self.retry(countdown=0.05, exc=ValueError("once"))
    note("end", self.request)
    return number


def later(self: Any, number: int, seconds: float) -> int:
    """Fail once, retry after so many seconds, then return the number."""
    note("start", self.request)
    if self.request.retries == 0:
        raise self.retry(countdown=seconds, exc=ValueError("once"))
    note("end", self.request)
    return number


def step(self: Any, number: int) -> int:
    """A part of a chain: one more than before."""
    note("start", self.request)
    time.sleep(0.02)
    note("end", self.request)
    return number + 1


def collect(self: Any, numbers: list[int]) -> list[int]:
    """The body of a chord."""
    note("start", self.request)
    time.sleep(0.02)
    note("end", self.request)
    return numbers


def slot(self: Any, milliseconds: float = 0) -> None:
    """A periodic task: write down entry, slot and id."""
    request = self.request
    note("start", request, f"{request.periodic_task_name}|{request.periodic_slot}|{request.id}")
    time.sleep(milliseconds / 1000)
    note("end", request, f"{request.periodic_task_name}|{request.periodic_slot}|{request.id}")


async def waits(self: Any, number: int, milliseconds: float) -> int:
    """``work`` as a coroutine."""
    import asyncio

    note("start", self.request)
    await asyncio.sleep(milliseconds / 1000)
    note("end", self.request)
    return number


def _tenant(number: int, milliseconds: float) -> int:
    return number % 3


def steps(self: Any, number: int, count: int, milliseconds: float) -> list[int]:
    """Steps that are not to run again; each start and end of one is written down under the task's id and its name."""
    note("start", self.request)

    def step(index: int) -> int:
        name = self.step_key(str(index))
        note("start", self.request, name)
        time.sleep(milliseconds / 1000)
        note("end", self.request, name)
        return number + index

    values = [self.once(str(index), step, index) for index in range(count)]
    note("end", self.request)
    return values


def hungry(self: Any, megabytes: int, group: str) -> int:
    """Enter a memory cgroup and take memory until the kernel objects; without a group, do what the kernel would do."""
    note("start", self.request)
    if group:
        Path(group).write_text(str(os.getpid()), "ascii")
    taken = [b"x" * 1_048_576 for _ in range(megabytes)]
    if not group:
        os.kill(os.getpid(), signal.SIGKILL)
    note("end", self.request)
    return len(taken)


def exhaust(self: Any, what: str) -> str:
    """Take file descriptors, threads or processes until there are no more; give them back at the end."""
    note("start", self.request)
    over = threading.Event()
    files: list[int] = []
    threads: list[threading.Thread] = []
    processes: list[int] = []
    error = "there is no end of them"
    try:
        for _ in range(5000):
            if what == "files":
                files.append(os.open(os.devnull, os.O_RDONLY))
            elif what == "threads":
                thread = threading.Thread(target=over.wait, args=(30,), daemon=True)
                thread.start()
                threads.append(thread)
            else:
                pid = os.fork()
                if not pid:
                    time.sleep(30)
                    os._exit(0)
                processes.append(pid)
    except (OSError, RuntimeError) as failure:
        error = type(failure).__name__
        time.sleep(0.5)
    over.set()
    for descriptor in files:
        os.close(descriptor)
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for thread in threads:
        thread.join(5)
    note("end", self.request)
    return error


def again_at(self: Any, number: int, seconds: float) -> int:
    """Fail once, retry after so many seconds, then return the number."""
    note("start", self.request)
    if self.request.retries == 0:
        raise self.retry(countdown=seconds, exc=ValueError("once"))
    note("end", self.request)
    return number


def make_app(conf: Mapping[str, Any]) -> Celery:
    """The app with these settings."""
    app = Celery("faults", set_as_current=False, **conf)
    for body in (work, gated, die, hold, again, later, step, collect, slot, waits, steps, again_at, hungry, exhaust):
        app.task(bind=True, name=f"faults.{body.__name__}")(body)
    app.task(bind=True, name="faults.once", acks_late=False)(work)
    app.task(bind=True, name="faults.paced", rate_limit="30/s")(work)
    app.task(bind=True, name="faults.seated", max_concurrency=2)(work)
    app.task(bind=True, name="faults.seated_gate", max_concurrency=2)(gated)
    app.task(bind=True, name="faults.seated_waits", max_concurrency=2)(waits)
    app.task(bind=True, name="faults.tenants", max_concurrency=1, max_concurrency_key=_tenant)(work)
    app.task(bind=True, name="faults.unique", unique=lambda number, milliseconds: str(number))(work)
    app.task(bind=True, name="faults.unique_gated", unique=True)(gated)
    limited.register(app)
    return app


class _WrongClock:
    """``time.time`` of a machine whose clock is off by what the file says, from the moment it says so."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen = 0
        self.off = 0.0

    def __call__(self) -> float:
        try:
            changed = os.stat(self.path).st_mtime_ns
            if changed != self.seen:
                self.off, self.seen = float(Path(self.path).read_text("ascii") or 0), changed
        except OSError:
            pass
        return _true_time() + self.off


if OFF in os.environ:
    # libfaketime 0.9.10 takes the absolute time of clock_nanosleep, which Python calls, for a wrong one.
    time.sleep = lambda seconds: (select.select((), (), (), seconds), None)[1]
if CLOCK in os.environ:
    time.time = _WrongClock(os.environ[CLOCK])

if CONF in os.environ:
    app = make_app(json.loads(os.environ[CONF]))
    if FUTURE in os.environ:
        app.task(bind=True, name="faults.future")(lambda self, number: work(self, number, 1))
