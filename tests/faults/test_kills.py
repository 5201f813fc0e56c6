"""Children and whole nodes die without a word: nothing is lost, every result can be read."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.faults.fleet import Fleet
from tests.faults.journal import report
from tests.faults.place import Place, in_steps
from tests.servers import wait_until

TASKS = 2000


def _pace(fleet: Fleet, ids: list[str], seconds: float) -> bool:
    """Wait so long, or until all that was sent has ended; True when it has."""
    try:
        return bool(wait_until(lambda: fleet.journal.ended(ids) == len(ids), seconds))
    except TimeoutError:
        return False


def _hurt(fleet: Fleet, rng: random.Random) -> str:
    """Kill a child or an agent, or a whole node, which is replaced by a new one."""
    node = rng.choice(fleet.living())
    if rng.random() < 0.6:
        node.kill_one(rng)
        return "child"
    node.signal_tree(signal.SIGKILL)
    fleet.start("-c", "4", wait=False)
    return "node"


@pytest.mark.slow
def test_kills_every_second_lose_nothing(place: Place, rng: random.Random, fault_scale: float) -> None:
    arguments = [(number, rng.uniform(5, 50)) for number in range(round(TASKS * fault_scale))]
    numbers: dict[str, int] = {}
    kills = {"child": 0, "node": 0}
    began = time.monotonic()
    with place.fleet() as fleet:
        for _ in range(2):
            fleet.start("-c", "4", wait=False)
        for part in in_steps(arguments, round(8 * fault_scale)):
            sent = place.send_many("work", part)
            numbers.update(zip(sent, (number for number, _ in part), strict=True))
            _pace(fleet, list(numbers), rng.uniform(0.7, 1.0))
            kills[_hurt(fleet, rng)] += 1
        while not _pace(fleet, list(numbers), rng.uniform(0.9, 1.1)) and kills["node"] < 8 * fault_scale:
            kills[_hurt(fleet, rng)] += 1
        last = time.monotonic()
        place.wait_all(fleet, list(numbers), 40.0)
        recovery = time.monotonic() - last
        place.judge(fleet, numbers, **kills, recovery=recovery, seconds=time.monotonic() - began)


@pytest.mark.parametrize("how", ["segfault", "exit", "SIGKILL"])
def test_a_task_that_kills_its_process(redis_place: Place, rng: random.Random, how: str) -> None:
    report(how=how)
    assert redis_place and rng
