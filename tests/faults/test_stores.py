"""Results on a server of their own that goes away: no task fails or runs twice for it, all results are readable."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import hiredis
import pytest

from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.proxy import Proxy
from tests.servers import HOST, RedisServer, wait_until


@pytest.mark.parametrize("kind", ["redis", pytest.param("sqlite", marks=pytest.mark.extended)])
@scenario(
    "results",
    fault="the result store is away for 10 s",
    promise="no task fails or runs twice, all results are written later",
)
def test_the_result_store_goes_away(
    make_redis: Callable[..., RedisServer],
    redis_server: RedisServer,
    redis_url: str,
    sqlite_url: str,
    tmp_path: Path,
    rng: random.Random,
    kind: str,
    fault_scale: float,
) -> None:
    away = 10.0 if fault_scale > 1 else 2.0
    with make_redis(appendonly=True) as results:
        broker = redis_url if kind == "redis" else sqlite_url
        server = redis_server if kind == "redis" else None
        place = Place(broker, tmp_path, server, result_backend=results.url())
        with place.fleet(worker_lease=30) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            ids = place.send_many("work", [(number, rng.uniform(5, 50)) for number in range(200)])
            wait_until(lambda: fleet.journal.ended(ids) >= 30, 10.0, fleet.logs)
            results.kill()
            gone = time.monotonic()
            node.logged("Cannot write")
            wait_until(lambda: time.monotonic() - gone > away, away + 5.0)
            held = place.depth().leased
            results.start()
            back = time.time()
            place.wait_all(fleet, ids, 30.0)
            first = min(run.at for run in fleet.journal.runs if run.at > back)
            # An outage of the store is no reason to run a task again.
            place.judge(
                fleet, {each: number for number, each in enumerate(ids)}, allowed=0, held=held, recovery=first - back
            )
            assert not place.dead()
            assert held < 50, "claiming must stop while nothing can be written"
            assert first - back < 10.0
            assert sorted(node.below()) == below
            assert node.stop() == 0


@scenario(
    "results",
    fault="SIGTERM while the result store is away",
    promise="what could not be written runs again elsewhere",
)
def test_a_stop_while_the_result_store_is_away(
    make_redis: Callable[..., RedisServer], redis_place: Place, rng: random.Random
) -> None:
    """What could not be written runs again elsewhere: at least once, and never lost."""
    with make_redis(appendonly=True) as results:
        place = redis_place.through(result_backend=results.url())
        with place.fleet(worker_grace=2.0) as fleet:
            node = fleet.start("-c", "2")
            ids = place.send_many("work", [(number, rng.uniform(5, 20)) for number in range(20)])
            wait_until(lambda: fleet.journal.ended(ids) >= 10, 10.0, fleet.logs)
            results.kill()
            ids += place.send_many("work", [(number, rng.uniform(5, 20)) for number in range(20, 100)])
            node.logged("Cannot write")
            began = time.monotonic()
            code = node.stop(30.0)
            took = time.monotonic() - began
            results.start()
            fleet.start("-c", "2")
            place.wait_all(fleet, ids, 20.0)
            place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=50, took=took, code=code)
            assert code == 0
            assert took < 2.0 + 20.0


@scenario(
    "results",
    fault="the result store is slow: 200 ms each way",
    promise="less a second, no task fails or runs twice",
)
def test_a_slow_result_store(make_redis: Callable[..., RedisServer], sqlite_place: Place, rng: random.Random) -> None:
    with make_redis() as results, Proxy(HOST, results.port) as proxy:
        place = sqlite_place.through(result_backend=results.url(port=proxy.port))
        with place.fleet(worker_lease=30) as fleet:
            node = fleet.start("-c", "2")
            proxy.latency(200)
            ids = place.send_many("work", [(number, rng.uniform(5, 20)) for number in range(100)])
            place.wait_all(fleet, ids, 30.0)
            proxy.latency(0)
            place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=0)
            assert not place.dead()
            assert not node.lines("ERROR/"), node.log()
            assert node.stop() == 0


def _fill(server: RedisServer) -> int:
    """Until it refuses; how many ``filler-<number>`` there are."""
    for number in range(1000):
        try:
            server.command("SET", f"filler-{number}", "x" * 100_000)
        except hiredis.ReplyError:
            return number
    raise AssertionError("it never got full")


@scenario(
    "results",
    fault="the result store is full (maxmemory, noeviction)",
    promise="no task fails or runs twice, results are written all the same or as soon as there is room",
)
def test_a_full_result_store(make_redis: Callable[..., RedisServer], redis_place: Place, rng: random.Random) -> None:
    with make_redis(maxmemory="3mb") as results:
        place = redis_place.through(result_backend=results.url())
        filled = _fill(results)
        with place.fleet(worker_lease=30) as fleet:
            node = fleet.start("-c", "2")
            ids = place.send_many("work", [(number, rng.uniform(5, 20)) for number in range(100)])
            wait_until(lambda: fleet.journal.ended(ids) >= 20, 10.0, fleet.logs)
            for number in range(filled):
                results.command("DEL", f"filler-{number}")
            began = time.monotonic()
            place.wait_all(fleet, ids, 20.0)
            recovery = time.monotonic() - began
            place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=0, recovery=recovery)
            assert not place.dead()
            assert node.stop() == 0
