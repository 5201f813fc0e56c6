"""The agent keeps the lease of a busy child's task, and of no other."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from celeriac.model.message import Delivery
from celeriac.worker.slot import READY, Slots
from celeriac.worker.standin import StandIn, runs
from tests.servers import wait_until


class _Broker:
    def __init__(self) -> None:
        self.extended: list[str] = []

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        self.extended += [delivery.token for delivery in deliveries]
        return ()


class _Clock:
    """Lets the stand-in look once."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        self.looks += 1
        if self.looks > 1:
            raise asyncio.CancelledError


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()
    assert child.stdin is not None
    child.stdin.close()


def _kept(pid: int, beat: float) -> list[str]:
    slots = Slots(1)
    slot = slots[0]
    slot.live(pid, READY)
    slot.pulse(beat, 0)
    slot.begin("token", "id", 0.0, 0.0, 0.0)
    broker: Any = _Broker()
    clock: Any = _Clock()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(StandIn(broker, lambda: [slot], clock, lease=3.0).run())
    slots.close()
    extended: list[str] = broker.extended
    return extended


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def test_a_silent_child_that_lives_is_kept() -> None:
    assert _kept(os.getpid(), time.monotonic() - 10) == ["token"]


def test_one_that_beats_renews_for_itself() -> None:
    assert _kept(os.getpid(), time.monotonic()) == []


def test_a_stopped_child_is_not_kept(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: _state(process.pid) == "T")
    assert _kept(process.pid, time.monotonic() - 10) == []
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: _state(process.pid) != "T")
    assert _kept(process.pid, time.monotonic() - 10) == ["token"]


def test_a_dead_child_that_nobody_has_reaped_is_not_kept(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    wait_until(lambda: _state(process.pid) == "Z")
    assert not runs(process.pid)
    process.wait()
    assert not runs(process.pid)
