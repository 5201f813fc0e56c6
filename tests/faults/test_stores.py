"""Results on a server of their own that goes away: no task fails or runs twice for it, all results are readable."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.journal import report
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.servers import RedisServer, wait_until


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
@scenario(
    "results",
    fault="the result store is away for 5 s",
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
) -> None:
    with make_redis(appendonly=True) as results:
        broker = redis_url if kind == "redis" else sqlite_url
        server = redis_server if kind == "redis" else None
        place = Place(broker, tmp_path, server, result_backend=results.url())
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            ids = place.send_many("work", [(number, rng.uniform(5, 50)) for number in range(200)])
            wait_until(lambda: fleet.journal.ended(ids) >= 30, 10.0, fleet.logs)
            results.kill()
            gone = time.monotonic()
            node.logged("Cannot write")
            wait_until(lambda: time.monotonic() - gone > (5.0 if kind == "redis" else 2.0), 6.0)
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
            assert first - back < 2.0
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
            ids = place.send_many("work", [(number, rng.uniform(5, 20)) for number in range(100)])
            wait_until(lambda: fleet.journal.ended(ids) >= 10, 10.0, fleet.logs)
            results.kill()
            node.logged("Cannot write")
            began = time.monotonic()
            code = node.stop(30.0)
            took = time.monotonic() - began
            results.start()
            fleet.start("-c", "2")
            place.wait_all(fleet, ids, 20.0)
            place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=50, took=took, code=code)
            assert code == 0
            assert took < 2.0 + 10.0
