"""What tasks wrote down about their runs, read while they go on; and the counts a fault test is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["REPORTED", "Journal", "Run", "report"]

#: What the tests reported since conftest.py emptied it: one test's counts at a time.
REPORTED: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One line: ``kind`` is start or end, ``at`` in seconds since the epoch."""

    kind: str
    id: str
    pid: int
    at: float
    retries: int
    redelivered: bool


class Journal:
    """The lines so far; ``read`` takes in what was appended since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: list[Run] = []
        #: Lines of an id, by kind.
        self.starts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._at = 0

    def read(self) -> Journal:
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._at += len(whole)
            for line in whole.decode().splitlines():
                self._take(line)
        return self

    def _take(self, line: str) -> None:
        kind, escaped, pid, at, retries, redelivered = line.split("\t")
        name = escaped.encode().decode("unicode_escape")
        run = Run(kind=kind, id=name, pid=int(pid), at=float(at), retries=int(retries), redelivered=redelivered == "1")
        self.runs.append(run)
        (self.starts if kind == "start" else self.ends)[name] += 1

    def ended(self, ids: Collection[str]) -> int:
        """How many of these ran to their end at least once."""
        self.read()
        return sum(1 for each in ids if each in self.ends)

    def started(self, name: str) -> list[Run]:
        """The starts of one task, in order."""
        self.read()
        return [run for run in self.runs if run.id == name and run.kind == "start"]

    def finished(self, name: str) -> list[Run]:
        self.read()
        return [run for run in self.runs if run.id == name and run.kind == "end"]

    def again(self, ids: Collection[str]) -> int:
        """Starts beyond the first of each attempt."""
        wanted = set(ids)
        starts = [(run.id, run.retries) for run in self.read().runs if run.kind == "start" and run.id in wanted]
        return len(starts) - len(set(starts))

    def waited(self, sent: Mapping[str, float]) -> list[float]:
        """Seconds between the sending, as given, and the first start of each that has started; sorted."""
        firsts: dict[str, float] = {}
        for run in self.read().runs:
            if run.kind == "start" and run.id in sent:
                firsts.setdefault(run.id, run.at)
        return sorted(at - sent[each] for each, at in firsts.items())

    def last(self) -> float:
        """The moment of the newest line."""
        self.read()
        return self.runs[-1].at if self.runs else 0.0


_ADDED = {"sent", "lost", "again", "doubled", "stuck", "early"}


def report(**counts: Any) -> None:
    """The line that each fault test prints; in a scenario also its row. Counts of several reports add up.

    ``sent``, ``lost``, ``again`` (starts beyond the first of an attempt), ``doubled`` (more of them than the fault
    accounts for), ``stuck``, ``early``, ``recovery`` in seconds, ``place``; anything else is for the reader only.
    """
    for name, value in counts.items():
        if name in _ADDED and name in REPORTED:
            value += REPORTED[name]
        REPORTED[name] = value
    shown = (f"{name}={value:.2f}" if isinstance(value, float) else f"{name}={value}" for name, value in counts.items())
    print("counts:", *shown)
