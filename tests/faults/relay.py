"""A bad line between two network namespaces: packets are late, and some are lost.

A TAP device at each end, and one process that carries frames between them, ``python -m tests.faults.relay``: the same
everywhere, for not every kernel has netem. The losses follow a seed.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Line"]

ROOT = Path(__file__).parents[2]
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME = 65536


class Running(NamedTuple):
    """The process that carries."""

    process: subprocess.Popen[bytes]

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """So many seconds late each way, and this share lost."""

    delay: float
    loss: float
    seed: int = 0

    def lay(self, here: int, near: str, there: int, far: str) -> Running:
        """Between a device ``near`` in the network of one process and ``far`` in that of another."""
        ends = (str(here), near, str(there), far)
        how = (str(self.delay), str(self.loss), str(self.seed))
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", __name__, *ends, *how],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        if process.stdout.readline() != b"laid\n":
            process.wait(30)
            raise OSError("the relay could not make its devices")
        return Running(process)


def _tap(pid: int, name: str) -> int:
    """A TAP device in the network of that process; this process stays there."""
    space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(space, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(space)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def _carry(ends: tuple[int, int], delay: float, loss: float, rng: random.Random) -> None:
    """Until this process is ended."""
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select(ends, (), (), wait)
        now = time.monotonic()
        for end in readable:
            frame = os.read(end, _FRAME)
            if rng.random() >= loss:
                count += 1
                heapq.heappush(under_way, (now + delay, count, other[end], frame))
        while under_way and under_way[0][0] <= now:
            _, _, end, frame = heapq.heappop(under_way)
            try:
                os.write(end, frame)
            except OSError:  # the device is down: lost
                pass


def main(words: list[str]) -> None:
    here, near, there, far, delay, loss, seed = words
    ends = (_tap(int(here), near), _tap(int(there), far))
    print("laid", flush=True)
    _carry(ends, float(delay), float(loss), random.Random(int(seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
