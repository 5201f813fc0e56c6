"""Redis behind sentinels: its master dies, or is replaced by order, under load (fault 12)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.fleet import Fleet
from tests.faults.load import Load
from tests.faults.place import Place
from tests.faults.recovery import first_end_after
from tests.faults.scenario import scenario
from tests.servers import RedisSentinels, RedisServer

#: A send counts when the replica has it.
CONFIRMED = {"broker_transport_options": {"wait_replicas": (1, 1000)}}


def _after_failover(
    fleet: Fleet, load: Load, failed_over: Callable[[], RedisServer], restart: Callable[[], object]
) -> tuple[float, float]:
    """The time from the new master to the first task that ended, and when it was there; ``restart`` makes the old one a
    replica."""
    failed_over()
    moved = time.time()
    recovery = first_end_after(fleet, moved)
    restart()
    load.until(50, 30.0)
    return recovery, moved


@scenario(
    "broker",
    fault="Redis' master is killed, sentinels promote its replica; sends wait for the replica (`wait_replicas`)",
    promise="nothing that was confirmed is lost, the first task is done within 3 s of the promotion",
)
def test_a_master_dies_under_sentinels(
    make_sentinels: Callable[..., RedisSentinels], tmp_path: Path, rng: random.Random
) -> None:
    sentinels = make_sentinels()
    place = Place(sentinels.url(), tmp_path, **CONFIRMED)
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        below = sorted(node.below())
        # Some wait while the failover goes on.
        ids = place.send_many("work", [(number, 20) for number in range(300)])
        numbers = {each: number for number, each in enumerate(ids)}
        with Load(place, rng) as load:
            load.until(30)
            old = sentinels.master
            old.kill()
            recovery, _ = _after_failover(fleet, load, lambda: sentinels.failed_over(old), old.start)
        numbers |= load.numbers
        place.wait_all(fleet, list(numbers), 40.0)
        place.judge(fleet, numbers, allowed=8, refused=load.refused, slowest=load.slowest, recovery=recovery)
        assert recovery < 10.0
        assert load.slowest < 15.0
        assert sorted(node.below()) == below, node.log()
        assert node.stop() == 0


@scenario(
    "broker",
    fault="an operator orders a failover (`SENTINEL FAILOVER`); sends wait for the replica (`wait_replicas`)",
    promise="nothing that was confirmed is lost; what workers did on the old master for a second runs again",
)
def test_an_ordered_failover(make_sentinels: Callable[..., RedisSentinels], tmp_path: Path, rng: random.Random) -> None:
    sentinels = make_sentinels()
    place = Place(sentinels.url(), tmp_path, **CONFIRMED)
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        below = sorted(node.below())
        ids = place.send_many("work", [(number, 20) for number in range(300)])
        numbers = {each: number for number, each in enumerate(ids)}
        with Load(place, rng) as load:
            load.until(30)
            old = sentinels.master
            ordered = time.time()
            sentinels.order_failover()
            recovery, moved = _after_failover(fleet, load, lambda: sentinels.failed_over(old), lambda: None)
        numbers |= load.numbers
        place.wait_all(fleet, list(numbers), 40.0)
        # What was run around the failover, until they have asked the sentinels: each second, by rights.
        until = moved - ordered + 4.0
        starts: dict[str, list[float]] = {}
        for run in fleet.journal.read().runs:
            if run.kind == "start":
                starts.setdefault(run.id, []).append(run.at - ordered)
        around = sum(-1.0 < each[0] < until for each in starts.values())
        apart = [each for each in starts.values() if len(each) > 1 and not -1.0 < each[0] < until]
        assert not apart, f"run again, though they were done apart from the failover: {apart[:5]}"
        place.judge(
            fleet, numbers, allowed=max(200, around), refused=load.refused, slowest=load.slowest, recovery=recovery
        )
        assert recovery < 10.0
        assert sorted(node.below()) == below, node.log()
        assert node.stop() == 0
