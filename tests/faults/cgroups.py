"""A control group with a limit, where the kernel and our rights allow one: real OOM kills, real lack of processes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import wait_until

__all__ = ["limited"]

_ROOT = Path("/sys/fs/cgroup")
_LIMITS = {"memory": ("memory.limit_in_bytes", "memory.max"), "pids": ("pids.max", "pids.max")}


@contextmanager
def limited(kind: str, limit: int) -> Iterator[Path | None]:
    """The ``cgroup.procs`` of a new group with so many bytes (``memory``) or tasks (``pids``); None where not allowed.

    Whoever writes a pid into it is under the limit. When it ends, its processes must have ended.
    """
    name = f"celeriac-faults-{secrets.token_hex(4)}"
    old, new = _LIMITS[kind]
    group = None
    for parent, file in ((_ROOT / kind, old), (_ROOT, new)):
        group = _make(parent / name, file, limit)
        if group is not None:
            break
    if group is None:
        yield None
        return
    try:
        yield group / "cgroup.procs"
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text("ascii"), 10.0, f"{group} is empty")
        group.rmdir()


def _make(group: Path, file: str, limit: int) -> Path | None:
    try:
        if not group.parent.is_dir():
            return None
        group.mkdir()
    except OSError:
        return None
    try:
        (group / file).write_text(str(limit), "ascii")
    except OSError:  # no such controller here
        group.rmdir()
        return None
    return group
