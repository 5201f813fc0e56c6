"""Worker nodes as processes, and ways to hurt them: whole trees, single children, the supervisor alone.

    with Fleet(place, folder) as fleet:
        node = fleet.start("-c", "2")
        node.signal_tree(signal.SIGKILL)

A node dies with the test run (PDEATHSIG), so start it from the main thread. Knows nothing of what tasks do.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.journal import Journal
from tests.faults.project import CONF, JOURNAL
from tests.servers import wait_until

__all__ = ["ROOT", "Fleet", "Node", "alive", "descendants"]

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0


def _status(pid: int) -> tuple[str, int] | None:
    """State letter and parent of a process, or None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def alive(pid: int) -> bool:
    """Whether it runs or is stopped; a zombie is dead."""
    status = _status(pid)
    return status is not None and status[0] not in "ZX"


def descendants(pid: int) -> list[int]:
    """Living processes below this one."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            status = _status(int(name))
            if status is not None and status[0] not in "ZX":
                parents.setdefault(status[1], []).append(int(name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def send_signal(pids: Iterable[int], number: int) -> None:
    """Signal those that still live."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Node:
    """One ``celeriac worker`` and everything it forked, or one ``celeriac beat``."""

    def __init__(
        self,
        name: str,
        arguments: Iterable[str],
        environment: Mapping[str, str],
        log: Path,
        guard: Sequence[str] = (),
        what: str = "worker",
    ) -> None:
        self.name = name
        #: What it logs when it is up.
        self._up = " ready." if what == "worker" else " entries"
        self.log_path = log
        life = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        command = [*life, *guard, sys.executable, "-m", "celeriac", "-A", "tests.faults.project", what]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *(("-n", name) if what == "worker" else ()), *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._seen: set[int] = set()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ready(self, seconds: float = START_SECONDS) -> Self:
        """Wait until all children have connected."""
        wait_until(lambda: self.has_logged(self._up) or not self.running, seconds, lambda: f"ready\n{self.log()}")
        assert self.running, f"the worker ended with {self.process.returncode}\n{self.log()}"
        return self

    def tree(self) -> list[int]:
        """The supervisor and all it forked; remembered, so that orphans are ended too."""
        below = descendants(self.pid)
        self._seen.update(below)
        return [self.pid, *below]

    def below(self) -> list[int]:
        """Agent and children, without the supervisor."""
        return self.tree()[1:]

    def signal_tree(self, number: int) -> None:
        """Signal all at once; before a SIGKILL they are stopped, so that nobody sees another one die."""
        pids = self.tree()
        if number == signal.SIGKILL:
            send_signal(pids, signal.SIGSTOP)
            pids = self.tree()
        send_signal(pids, number)
        if number == signal.SIGKILL:
            self.process.wait(30)

    def kill_one(self, rng: random.Random, deaths: dict[int, float] | None = None) -> int:
        """SIGKILL one process below the supervisor; returns its pid, 0 when there is none. ``deaths`` is told when:
        the moment before, for another may have its seat as soon as it is dead."""
        below = self.below()
        if not below:
            return 0
        victim = rng.choice(sorted(below))
        if deaths is not None:
            deaths[victim] = time.time()
        send_signal([victim], signal.SIGKILL)
        return victim

    def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM, wait, and return the exit code."""
        self.tree()
        if self.running:
            self.process.terminate()
        return self.exit_code(seconds)

    def exit_code(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} did not end within {seconds:g} s\n{self.log()}") from None

    def end(self) -> None:
        """Leave nothing behind."""
        if self.running:
            self.signal_tree(signal.SIGKILL)
        send_signal([pid for pid in self._seen if alive(pid) and _is_worker(pid)], signal.SIGKILL)

    def text(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def lines(self, part: str) -> list[str]:
        """Log lines that contain ``part``."""
        return [line for line in self.text().splitlines() if part in line]

    def has_logged(self, part: str) -> bool:
        return part in self.text()

    def logged(self, part: str, seconds: float = 10.0) -> str:
        """Wait for a log line that contains ``part``; returns it."""
        wait_until(lambda: self.has_logged(part), seconds, lambda: f"{self.name} logs {part!r}\n{self.log()}")
        return self.lines(part)[0]

    def log(self, lines: int = 30) -> str:
        return "\n".join(self.text().splitlines()[-lines:])


def _is_worker(pid: int) -> bool:
    """A pid may have been given to somebody else since it was seen."""
    try:
        return b"tests.faults.project" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Fleet:
    """The nodes of one test: same settings, same journal."""

    def __init__(self, folder: Path, conf: Mapping[str, Any]) -> None:
        self.folder = folder
        self.conf = dict(conf)
        self.journal = Journal(folder / "journal")
        self.nodes: list[Node] = []
        self._count = 0

    def start(
        self,
        *arguments: str,
        name: str | None = None,
        level: str = "info",
        wait: bool = True,
        environment: Mapping[str, str] | None = None,
        guard: Sequence[str] = (),
        what: str = "worker",
    ) -> Node:
        """Start a node, or ``what="beat"``; its settings are the fleet's of now. ``guard`` is a command that runs the
        worker's."""
        self._count += 1
        everything = {
            **(environment or {}),
            CONF: json.dumps(self.conf),
            JOURNAL: str(self.journal.path),
            "PYTHONPATH": str(ROOT / "src"),
        }
        log = self.folder / f"worker-{self._count}.log"
        node = Node(name or f"w{self._count}@faults", ["-l", level, *arguments], everything, log, guard, what)
        self.nodes.append(node)
        return node.ready() if wait else node

    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.running]

    def logs(self) -> str:
        """The ends of all logs, for a failure's message."""
        return "\n".join(f"--- {node.name}\n{node.log(12)}" for node in self.nodes[-6:])

    def lines(self, part: str) -> list[str]:
        return [line for node in self.nodes for line in node.lines(part)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.end()
