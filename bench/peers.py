"""The peers that are compared, and a station: one peer set up for one measurement, with its queue, worker and marks."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import process
from bench.fields import field
from bench.messages import Load
from bench.servers import Servers

ROOT = Path(__file__).parent.parent.absolute()
STALLED = 30.0  # seconds without progress after which a measurement is given up


class BenchError(Exception):
    """A measurement that could not be made; the text says why, with the end of the worker's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`library` offers `Celery` and a command of the same name in the venv `venv`, unless a `driver` speaks for it."""

    name: str
    library: str
    venv: str
    broker: str
    #: Settings of its app: late acknowledgement for Celery, as it is ours by default.
    settings: tuple[tuple[str, object], ...] = ()
    #: The module that produces for it, and runs its worker where it is none of Celery's kind.
    driver: str = "bench.produce"
    #: Measured wherever something is compared with it, whatever broker was asked for.
    base: bool = False

    def program(self, name: str) -> str:
        return str(ROOT / self.venv / "bin" / name)

    def worker(self, arguments: Sequence[str]) -> list[str]:
        """The command of a worker with two processes."""
        if self.driver != "bench.produce":
            return [self.program("python"), "-m", self.driver, "worker", json.dumps({"processes": 2})]
        command = [self.program(self.library), "-A", "bench.app", "worker", "-n", "bench@%h"]
        return [*command, *_options(arguments)]


LATE = (("task_acks_late", True),)
CELERY = Peer(name="celery", library="celery", venv=".venv-celery", broker="redis")
OURS = Peer(name="ours", library="celeriac", venv=".venv", broker="redis")
SQLITE = Peer(name="sqlite", library="celeriac", venv=".venv", broker="sqlite")
BARE = Peer(name="bare", library="", venv=".venv", broker="")  # no queue at all, the upper bound

CELERY_LATE = replace(CELERY, settings=LATE)
CELERY_RABBIT = replace(CELERY, broker="rabbitmq", settings=LATE)
RABBIT = replace(OURS, broker="rabbitmq")
CLUSTER = replace(OURS, name="cluster", broker="cluster")
ONE_REDIS = replace(OURS, base=True)
POSTGRES = replace(OURS, broker="postgres")
POTATOQ = Peer(name="potatoq", library="potatoq", venv=".venv-peers", broker="postgres")
PROCRASTINATE = Peer(
    name="procrastinate",
    library="procrastinate",
    venv=".venv-peers",
    broker="postgres",
    driver="bench.peers_procrastinate",
)


@dataclass(slots=True, kw_only=True)
class Worker:
    process: subprocess.Popen[bytes]
    log: Path
    spawned: float

    def pids(self) -> list[int]:
        return process.tree(self.process.pid)

    def check(self) -> None:
        if self.process.poll() is not None:
            raise BenchError(f"the worker exited with {self.process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-4:]) or "(no output)"


class Station:
    """One peer with an empty broker and a folder of its own. Use as a context manager."""

    def __init__(self, peer: Peer, servers: Servers) -> None:
        self.peer = peer
        self.redis = servers.redis
        self._servers = servers

    def __enter__(self) -> "Station":
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self.marks_file = self.folder / "marks"
        self.field = field(self.peer.broker, self._servers, self.folder)
        own = {
            "BENCH_LIBRARY": self.peer.library,
            "BENCH_BROKER": self.field.broker,
            "BENCH_BACKEND": self.field.backend,
            "BENCH_SETTINGS": json.dumps(dict(self.peer.settings)),
            "BENCH_MARKS": str(self.marks_file),
        }
        self._env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | own
        return self

    def __exit__(self, *_: object) -> None:
        self.field.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- queue

    def fill(self, load: Load) -> None:
        self.field.fill(load, self.produce)

    def produce(self, mode: str, **options: object) -> Any:
        """Runs `bench.produce` in the peer's venv and returns what it printed."""
        command = [self.peer.program("python"), "-m", self.peer.driver, mode, json.dumps(options)]
        done = subprocess.run(command, cwd=ROOT, env=self._env, capture_output=True, timeout=600, check=False)
        if done.returncode:
            raise BenchError(f"producer: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def wait_until_empty(self, worker: Worker) -> None:
        """Until nothing is ready or in flight."""
        deadline = time.monotonic() + STALLED
        while self.field.waiting():
            worker.check()
            if time.monotonic() > deadline:
                raise BenchError(f"messages remain in the queue: {worker.last_words()}")
            time.sleep(0.02)

    # --- worker

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[Worker]:
        """`<library> -A bench.app worker -c 2 -l warning ARGUMENTS`, where later arguments win; not yet ready."""
        log = self.folder / "worker.log"
        with log.open("ab") as output:
            spawned = time.time()
            running = subprocess.Popen(
                self.peer.worker(arguments), cwd=ROOT, env=self._env, stdout=output, stderr=output
            )
        worker = Worker(process=running, log=log, spawned=spawned)
        try:
            yield worker
        finally:
            self._stop(worker)

    def warm_up(self, worker: Worker, task: str = "bench.noop", count: int = 200) -> None:
        """Runs some tasks, so that each child has started, and forgets their marks."""
        self.fill(Load(task=task, count=count, mark_every=1))
        self.wait_for_marks(count, worker)
        self.wait_until_empty(worker)
        os.truncate(self.marks_file, 0)

    def _stop(self, worker: Worker) -> None:
        pids = worker.pids()
        worker.process.terminate()
        try:
            worker.process.wait(30)
        except subprocess.TimeoutExpired:
            for pid in {*pids, *worker.pids()}:
                os.kill(pid, 9)
            worker.process.wait()

    # --- marks

    def wait_for_marks(self, count: int, worker: Worker) -> None:
        seen, position, changed = 0, 0, time.monotonic()
        while seen < count:
            fresh = self._marks_from(position)
            if fresh:
                position += len(fresh)
                seen += fresh.count(b"\n")
                changed = time.monotonic()
                continue
            worker.check()
            if time.monotonic() - changed > STALLED:
                raise BenchError(f"{seen} of {count} marks, then silence: {worker.last_words()}")
            time.sleep(0.02)

    def marks(self) -> dict[int, float]:
        """Index → time of its (first) start."""
        found: dict[int, float] = {}
        for line in self.marks_file.read_text().splitlines():
            mark, moment = line.split()
            found[int(mark)] = min(float(moment), found.get(int(mark), float("inf")))
        return found

    def _marks_from(self, position: int) -> bytes:
        try:
            with self.marks_file.open("rb") as file:
                file.seek(position)
                return file.read()
        except FileNotFoundError:
            return b""


def _options(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `-c 2 -l warning` where they do not say otherwise: a repeated option is no common ground."""
    found = list(arguments)
    for option, value in (("-c", "2"), ("-l", "warning")):
        if option not in found:
            found += [option, value]
    return found
