"""A network that works badly for long: reset again and again, slow, narrow. Work goes on at the pace it allows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults.fleet import Fleet
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


@contextmanager
def _behind_proxy(place: Place, **conf: Any) -> Iterator[tuple[Proxy, Place, Fleet]]:
    """A node of two children, and a place for senders, that reach the broker through a proxy only.

    Afterwards the same processes must still be there, and the node must stop as it should.
    """
    assert place.server is not None
    with Proxy(HOST, place.server.port) as proxy:
        url = place.server.url(port=proxy.port)
        with place.fleet(broker_url=url, result_backend=url, **conf) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            yield proxy, Place(url, place.folder), fleet
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0


@scenario(
    "network",
    fault="all connections are reset every 0.5 to 1.5 s, under load",
    promise="no process ends, callers are told, work goes on between",
)
def test_a_storm_of_resets(redis_place: Place, rng: random.Random, fault_scale: float) -> None:
    with _behind_proxy(redis_place) as (proxy, far, fleet):
        with _storm(proxy, rng) as cuts, Load(far, rng, rate=40) as load:
            wait_until(lambda: len(cuts) >= round(3 * fault_scale), 20 * fault_scale)
        redis_place.wait_all(fleet, list(load.numbers), 15.0)
        recovery = fleet.journal.waited(load.sent)[-1]
        redis_place.judge(
            fleet,
            load.numbers,
            allowed=4 * len(cuts),
            cuts=len(cuts),
            refused=load.refused,
            uncertain=load.uncertain,
            slowest=load.slowest,
            recovery=recovery,
        )
        assert load.refused == load.uncertain, "what surely was not sent can be sent again"
        assert load.slowest < 12.0
        assert recovery < 12.0


@pytest.mark.parametrize("limit", ["latency", "bandwidth"])
@scenario(
    "network",
    fault="a far server: 150 ms each way, or a line of 100 kB/s",
    promise="less a second, nothing else",
)
def test_a_slow_line(redis_place: Place, rng: random.Random, limit: str) -> None:
    with _behind_proxy(redis_place, worker_lease=30) as (proxy, far, fleet):
        if limit == "latency":
            proxy.latency(150)
        else:
            proxy.bandwidth(100_000)
        with Load(far, rng, rate=20) as load:
            load.until(5, 20.0)
            ids = redis_place.send_many("work", [(number, 5) for number in range(12)])
            wait_until(lambda: fleet.journal.ended(ids) == 12, 20.0, fleet.logs)
        redis_place.wait_all(fleet, list(load.numbers), 20.0)
        numbers = {**load.numbers, **{each: number for number, each in enumerate(ids)}}
        redis_place.judge(fleet, numbers, allowed=0, refused=load.refused, slowest=load.slowest)
        assert load.refused == 0, load.errors
        assert not fleet.nodes[0].lines("ERROR/"), fleet.logs()


@scenario(
    "network",
    fault="no bytes for 10 s (blackhole) under load",
    promise="found, told, and resumed when it ends; only what was running may run twice",
)
def test_a_blackhole_under_load(redis_place: Place, rng: random.Random, fault_scale: float) -> None:
    """Six seconds in short runs: longer than a worker believes in a silent server."""
    with _behind_proxy(redis_place, worker_lease=5) as (proxy, far, fleet):
        with Load(far, rng, rate=20) as load:
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
        assert load.slowest < 15.0
