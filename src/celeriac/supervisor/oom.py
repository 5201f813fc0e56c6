"""Whether the kernel has killed processes because memory ran out: its own counters say so."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["OomKills"]

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OomKills:
    """The count of this control group, or of the machine. ``grown()``: has it grown since the last call?"""

    def __init__(self, root: Path = Path("/")) -> None:
        self._path = next((path for path in _counters(root) if _read(path) is not None), None)
        self._count = self._now()

    def _now(self) -> int:
        return (_read(self._path) or 0) if self._path is not None else 0

    def grown(self) -> bool:
        """At least one process was killed since the last call, or since this was made."""
        before, self._count = self._count, self._now()
        return self._count > before


def _counters(root: Path) -> list[Path]:
    """Where the count may be, the nearest first: this process's cgroup, the container's (v2, v1), the machine's."""
    groups = root / "sys/fs/cgroup"
    found = []
    try:
        own = (root / "proc/self/cgroup").read_text("utf-8", "replace")
    except OSError:
        own = ""
    for line in own.splitlines():
        number, _, path = line.partition("::")
        if number == "0" and path:
            found.append(groups / path.lstrip("/") / "memory.events")
    return [*found, groups / "memory.events", groups / "memory/memory.oom_control", root / "proc/vmstat"]


def _read(path: Path) -> int | None:
    try:
        count = _COUNT.search(path.read_text("utf-8", "replace"))
    except OSError:
        return None
    return int(count[1]) if count else None
