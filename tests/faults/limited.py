"""Tasks that run into their limits: they wait, block, spin, clean up, or do not listen. Part of project.py's app."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import time
from typing import Any

from celeriac import Celery
from celeriac.exceptions import SoftTimeLimitExceeded

__all__ = ["register"]

LONG = 60.0


def _caught(body: Any) -> str:
    try:
        body()
    except SoftTimeLimitExceeded as late:
        return f"caught {late.args[0] if late.args else ''}".strip()
    return "nothing came"


def sleeping() -> str:
    return _caught(lambda: time.sleep(LONG))


def receiving() -> str:
    ours, theirs = socket.socketpair()
    try:
        return _caught(lambda: ours.recv(1))
    finally:
        theirs.close()
        ours.close()


def waiting() -> str:
    with subprocess.Popen(["sleep", str(LONG)]) as other:
        try:
            return _caught(other.wait)
        finally:
            other.kill()


def spinning() -> str:
    """Never leaves Python for long, so a thread is reached too."""

    def spin() -> None:
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            time.sleep(0.01)

    return _caught(spin)


def deaf() -> None:
    """Does not end at its soft limit."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        try:
            time.sleep(0.01)
        except SoftTimeLimitExceeded:
            pass


def pid() -> int:
    return os.getpid()


async def apid() -> int:
    return os.getpid()


async def asleeping() -> str:
    try:
        await asyncio.sleep(LONG)
    except SoftTimeLimitExceeded as late:
        await asyncio.sleep(0.01)  # it may wait for its cleaning up
        return f"caught {late.args[0]}"
    return "nothing came"


async def agrouped() -> str:
    """What it started ends with it."""
    ended: list[str] = []

    async def part() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.append("part")

    try:
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            group.create_task(part())
            group.create_task(part())
    except SoftTimeLimitExceeded:
        return "+".join(ended)
    return "nothing came"


async def adeaf() -> None:
    """Swallows every cancellation."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            pass


async def ablocking() -> None:
    """Blocks the loop of the coroutines, as no coroutine should."""
    time.sleep(LONG)


def hungry(mebibytes: int) -> int:
    """Grows for good."""
    _kept.append(b"x" * (mebibytes << 20))
    return os.getpid()


def exhausting() -> int:
    """Has no descriptor left for a moment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = []
    try:
        while True:
            taken.append(os.dup(2))
    except OSError:
        time.sleep(1.5)
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return len(taken)


_kept: list[bytes] = []
_BODIES = (
    sleeping,
    receiving,
    waiting,
    spinning,
    deaf,
    pid,
    apid,
    asleeping,
    agrouped,
    adeaf,
    ablocking,
    hungry,
    exhausting,
)


def register(app: Celery) -> None:
    """``limited.<name>`` for each of them."""
    for body in _BODIES:
        app.task(name=f"limited.{body.__name__}")(body)
