"""What /proc says of a process and its descendants: CPU seconds, proportional memory. Linux only."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid] if _stat(pid) else []
    for member in found:
        found += children.get(member, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time so far, with that of children already reaped."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / TICKS


def pss_megabytes(pid: int) -> float:
    """The proportional set size: shared pages count in parts, so the sum over a tree is what it really takes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def machine_busy(seconds: float) -> float:
    """The percentage of all CPUs that is in use: what others take while nothing is measured."""

    def idle() -> int:
        return sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[4:6]))

    before = idle()
    time.sleep(seconds)
    return max(0.0, 100 * (1 - (idle() - before) / TICKS / seconds / (os.cpu_count() or 1)))


def _stat(pid: int) -> list[str] | None:
    """The fields after the command's name: state, parent, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
