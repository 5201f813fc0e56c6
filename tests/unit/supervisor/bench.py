"""A supervisor that forks numbers and kills nobody, on a clock that stands still."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from celeriac.supervisor import place as place_module
from celeriac.supervisor import supervisor as module
from celeriac.supervisor.supervisor import Supervisor
from celeriac.worker.burial import Died
from celeriac.worker.options import NodeOptions

__all__ = ["EXIT_1", "KILLED", "Bench"]

KILLED = signal.SIGKILL
EXIT_1 = 1 << 8


class Bench:
    """A supervisor whose forks are numbers and whose kills are kept; ``now`` is the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.now = 1_000.0
        self.kills: list[tuple[str, int]] = []
        self.started: list[str] = []
        self.dead: dict[int, int] = {}
        self._pids = iter(range(4_000_000, 5_000_000))
        self.made: Supervisor
        monkeypatch.setattr(module, "fork", self._fork)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        names = ("write", "read", "pipe", "set_blocking", "getpid", "eventfd_write")
        fake = SimpleNamespace(
            **{name: getattr(os, name) for name in names},
            waitpid=self._waitpid,
            waitstatus_to_exitcode=os.waitstatus_to_exitcode,
            WNOHANG=os.WNOHANG,
        )
        monkeypatch.setattr(module, "os", fake)
        monkeypatch.setattr(place_module.os, "kill", self._kill)
        monkeypatch.setattr(module, "say", lambda **said: None)
        node = NodeOptions(**{"hostname": "w@h", "queues": ("celery",), "concurrency": 2, **options})
        self.made = Supervisor(None, node)  # type: ignore[arg-type]
        os.set_blocking(self.made._notices_read, False)
        self.made._fit()
        self.agent: Any = self.made._agent
        self.first: Any = self.made._children[0]
        self.others: list[Any] = [*self.made._children[1:]]

    def _fork(self, main: Callable[[], int]) -> int:
        pid = next(self._pids)
        self.started.append(str(pid))
        return pid

    def _kill(self, pid: int, number: int) -> None:
        if pid in self.dead:
            raise ProcessLookupError
        places = (self.made._agent, *self.made._children)
        self.kills.append((next(place.name for place in places if place.pid == pid), number))

    def _waitpid(self, pid: int, options: int) -> tuple[int, int]:
        return (pid, self.dead[pid]) if pid in self.dead else (0, 0)

    def dies(self, place: Any, status: int) -> None:
        """The process ends, and the supervisor looks."""
        self.dead[place.pid] = status
        self.made._reap()

    def told(self) -> list[Died]:
        """Notices since the last time; the last line may be the empty one."""
        try:
            raw = os.read(self.made._notices_read, 65536)
        except BlockingIOError:
            return []
        return [msgspec.json.decode(line, type=Died) for line in raw.splitlines() if line]

    def close(self) -> None:
        made = self.made
        for place in (made._agent, *made._children):
            place.close()
        for each in (made._notices_read, made._notices_write, made._wake_read, made._wake_write):
            os.close(each)
        if made._memory.kept is not None:
            made._memory.kept.close()
        if made._memory.word is not None:
            made._memory.word.close()
