"""A network that works badly for long: reset again and again, slow, narrow. Work goes on at the pace it allows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.load import Load
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.proxy import Proxy
from tests.servers import HOST, wait_until


@contextmanager
def _storm(proxy: Proxy, rng: random.Random) -> Iterator[list[int]]:
    """Reset all connections every 0.5 to 1.5 s; yields how many each time."""
    over = threading.Event()
    cuts: list[int] = []

    def run() -> None:
        while not over.wait(rng.uniform(0.5, 1.5)):
            cuts.append(proxy.cut())

    thread = threading.Thread(target=run, name="storm")
    thread.start()
    try:
        yield cuts
    finally:
        over.set()
        thread.join(10)


@scenario(
    "network",
    fault="all connections are reset every 0.5 to 1.5 s, under load",
    promise="no process ends, callers are told, work goes on between",
)
def test_a_storm_of_resets(redis_place: Place, rng: random.Random, fault_scale: float) -> None:
    assert redis_place.server is not None
    with Proxy(HOST, redis_place.server.port) as proxy:
        url = redis_place.server.url(port=proxy.port)
        with redis_place.fleet(broker_url=url, result_backend=url) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            with _storm(proxy, rng) as cuts, Load(Place(url, redis_place.folder), rng, rate=40) as load:
                wait_until(lambda: len(cuts) >= round(4 * fault_scale), 20 * fault_scale)
            ids = list(load.numbers)
            redis_place.wait_all(fleet, ids, 15.0)
            waited = fleet.journal.waited(load.sent)
            redis_place.judge(
                fleet,
                load.numbers,
                allowed=4 * len(cuts),
                cuts=len(cuts),
                refused=load.refused,
                uncertain=load.uncertain,
                slowest=load.slowest,
                recovery=waited[-1],
            )
            assert load.refused == load.uncertain, "what surely was not sent can be sent again"
            assert load.slowest < 5.5
            assert waited[-1] < 3.0
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0


@pytest.mark.parametrize("limit", ["latency", "bandwidth"])
@scenario(
    "network",
    fault="a far server: 150 ms each way, or a line of 100 kB/s",
    promise="less a second, nothing else",
)
def test_a_slow_line(redis_place: Place, rng: random.Random, limit: str) -> None:
    assert redis_place.server is not None
    with Proxy(HOST, redis_place.server.port) as proxy:
        url = redis_place.server.url(port=proxy.port)
        with redis_place.fleet(broker_url=url, result_backend=url) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            if limit == "latency":
                proxy.latency(150)
            else:
                proxy.bandwidth(100_000)
            with Load(Place(url, redis_place.folder), rng, rate=20) as load:
                load.until(5, 20.0)
                ids = redis_place.send_many("work", [(number, 5) for number in range(24)])
                wait_until(lambda: fleet.journal.ended(ids) == 24, 20.0, fleet.logs)
            redis_place.wait_all(fleet, list(load.numbers), 20.0)
            numbers = {**load.numbers, **{each: number for number, each in enumerate(ids)}}
            redis_place.judge(fleet, numbers, allowed=0, refused=load.refused, slowest=load.slowest)
            assert load.refused == 0, load.errors
            assert not node.lines("ERROR/"), node.log()
            assert sorted(node.below()) == below
            assert node.stop() == 0


@scenario(
    "network",
    fault="no bytes for 10 s (blackhole) under load",
    promise="found, told, and resumed when it ends; only what was running may run twice",
)
def test_a_blackhole_under_load(redis_place: Place, rng: random.Random, fault_scale: float) -> None:
    """Six seconds in short runs: longer than a worker believes in a silent server."""
    assert redis_place.server is not None
    with Proxy(HOST, redis_place.server.port) as proxy:
        url = redis_place.server.url(port=proxy.port)
        with redis_place.fleet(broker_url=url, result_backend=url, worker_lease=5) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            with Load(Place(url, redis_place.folder), rng, rate=20) as load:
                load.until(20)
                proxy.blackhole()
                end = threading.Timer(10.0 if fault_scale > 1 else 6.0, proxy.blackhole, (False,))
                end.start()
                end.join()
                over = time.time()
                load.until(20)
            redis_place.wait_all(fleet, list(load.numbers), 20.0)
            redis_place.judge(
                fleet,
                load.numbers,
                allowed=4,
                refused=load.refused,
                uncertain=load.uncertain,
                slowest=load.slowest,
                recovery=min(run.at for run in fleet.journal.runs if run.at > over) - over,
            )
            assert load.slowest < 10.0
            assert sorted(node.below()) == below
            assert node.stop() == 0
