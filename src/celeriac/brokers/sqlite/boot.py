"""A clock that never jumps, is the same for all processes of this machine, and says when the machine was restarted.

Leases are times on it: a wall clock set forward by an hour must not end every lease, and after a restart no process of
before can still hold one. Where the system has no such clock it is the wall clock.
"""

from __future__ import annotations

import sys
import time
import zlib

from msgspec import Struct

__all__ = ["BOOT", "Moment", "moment", "uptime"]


class Moment(Struct, frozen=True, kw_only=True):
    """When a transaction happens: ``now`` since the epoch, ``uptime`` of this ``boot``; how long a token holds."""

    now: float
    uptime: float
    boot: int
    wait: float


def _boot_id() -> int:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return zlib.crc32(file.read())
    except OSError:
        return 0


#: Identifies this boot of the machine; 0 where it cannot be told, then ``uptime`` is the wall clock.
BOOT: int = _boot_id() if sys.platform == "linux" else 0


def uptime() -> float:
    """Seconds since the machine started, time asleep included."""
    if sys.platform == "linux" and BOOT:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time()


def moment(wait: float) -> Moment:
    """This moment, for chords whose tokens hold for ``wait`` seconds."""
    return Moment(now=time.time(), uptime=uptime(), boot=BOOT, wait=wait)
