"""Killing at random, and waiting meanwhile: what tests of chance share."""

from __future__ import annotations

import random
import signal

from tests.faults.fleet import Fleet
from tests.servers import wait_until

__all__ = ["hurt", "pace"]


def pace(fleet: Fleet, ids: list[str], seconds: float) -> bool:
    """Wait so long, or until all that was sent has ended; True when it has."""
    try:
        return bool(wait_until(lambda: fleet.journal.ended(ids) == len(ids), seconds))
    except TimeoutError:
        return False


def hurt(fleet: Fleet, rng: random.Random) -> str:
    """Kill a child or an agent, or a whole node, which is replaced by a new one."""
    node = rng.choice(fleet.living())
    if rng.random() < 0.6:
        node.kill_one(rng)
        return "child"
    node.signal_tree(signal.SIGKILL)
    fleet.start("-c", "4", wait=False)
    return "node"
