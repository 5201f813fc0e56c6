"""A Redis Cluster under load: a node dies and comes back, or its replica takes over, or slots move (fault 12)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from celeriac.brokers.redis.cluster.slots import bucket_tags, queue_tag, slot_of, tagged
from tests.faults.load import Load
from tests.faults.place import QUEUE, Place
from tests.faults.recovery import first_end_after
from tests.faults.scenario import scenario
from tests.servers import RedisCluster, wait_until

BACKLOG = 250


def _backlog(place: Place) -> dict[str, int]:
    """Some wait while the fault goes on."""
    ids = place.send_many("work", [(number, 20) for number in range(BACKLOG)])
    return {each: number for number, each in enumerate(ids)}


@scenario(
    "broker",
    fault="a node of a Redis Cluster is killed and restarted with its data",
    promise="its queues wait for it, nothing is lost, the first task is done within 3 s of its return",
)
def test_a_node_of_a_cluster_dies(
    make_cluster: Callable[..., RedisCluster], tmp_path: Path, rng: random.Random
) -> None:
    with make_cluster(appendonly=True) as nodes:
        place = Place(nodes.url(), tmp_path)
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            numbers = _backlog(place)
            with Load(place, rng) as load:
                load.until(30)
                dead = nodes.node_of(QUEUE)
                dead.kill()
                refused = load.refused
                wait_until(lambda: load.refused > refused, 10.0, "callers are told")
                dead.start()
                recovery = first_end_after(fleet, time.time())
                load.until(30, 20.0)
            numbers |= load.numbers
            place.wait_all(fleet, list(numbers), 40.0)
            place.judge(fleet, numbers, allowed=8, refused=load.refused, slowest=load.slowest, recovery=recovery)
            assert recovery < 10.0
            assert load.slowest < 15.0
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0


@scenario(
    "broker",
    fault="a master of a Redis Cluster is killed, its replica is voted in; sends wait for replicas (`wait_replicas`)",
    promise="nothing that was confirmed is lost, the first task is done within 3 s of the vote",
)
def test_a_replica_of_a_cluster_takes_over(
    make_cluster: Callable[..., RedisCluster], tmp_path: Path, rng: random.Random
) -> None:
    with make_cluster(replicas=True) as nodes:
        place = Place(nodes.url(), tmp_path, broker_transport_options={"wait_replicas": (1, 1000)})
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            numbers = _backlog(place)
            with Load(place, rng) as load:
                load.until(30)
                old = nodes.node_of(QUEUE)
                old.kill()
                wait_until(lambda: nodes.node_of(QUEUE) is not old, 30.0, "a vote")
                recovery = first_end_after(fleet, time.time())
                old.start()
                load.until(30, 30.0)
            numbers |= load.numbers
            place.wait_all(fleet, list(numbers), 40.0)
            place.judge(fleet, numbers, allowed=20, refused=load.refused, slowest=load.slowest, recovery=recovery)
            assert recovery < 10.0
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0


@scenario(
    "broker",
    fault="the slots of a queue and of all results move to other nodes of a Redis Cluster (resharding)",
    promise="nobody is told, nothing is lost, nothing runs twice",
)
def test_a_cluster_is_resharded(make_cluster: Callable[..., RedisCluster], tmp_path: Path, rng: random.Random) -> None:
    with make_cluster() as nodes:
        place = Place(nodes.url(), tmp_path)
        tags = [queue_tag(QUEUE), *bucket_tags()]
        with place.fleet(worker_lease=30) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            numbers = _backlog(place)
            with Load(place, rng) as load:
                load.until(20)
                for number, tag in enumerate(tags):
                    nodes.move(slot_of(tagged("", tag)), nodes.nodes[number % 3])
                nodes.move(slot_of(tagged("", tags[0])), nodes.nodes[2])
                load.until(20)
            numbers |= load.numbers
            place.wait_all(fleet, list(numbers), 40.0)
            place.judge(fleet, numbers, allowed=0, refused=load.refused, slowest=load.slowest)
            assert load.refused == 0, load.errors
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0
