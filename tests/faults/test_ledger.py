"""A ledger on a server of its own that goes away: nothing new starts, nothing is lost, and callers are told."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.exceptions import OperationalError
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.servers import RedisServer, wait_until


@scenario(
    "results",
    fault="the ledger beside the broker is away for 10 s",
    promise="no task is lost or runs twice; unique ones are refused meanwhile, and nothing new starts",
)
def test_the_ledger_goes_away(
    make_redis: Callable[..., RedisServer],
    redis_server: RedisServer,
    redis_url: str,
    tmp_path: Path,
    rng: random.Random,
    fault_scale: float,
) -> None:
    away = 10.0 if fault_scale > 1 else 1.5
    with make_redis(appendonly=True) as ledger:
        results = redis_server.url(db=1)
        place = Place(
            f"queues+{redis_url}", tmp_path, redis_server, result_backend=results, ledger_url=ledger.url(),
            broker_publish_timeout=1.0,
        )  # fmt: skip
        with place.fleet(worker_lease=8) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            plain = place.send_many("work", [(number, rng.uniform(5, 50)) for number in range(200)])
            seated = place.send_many("seated", [(number, rng.uniform(5, 20)) for number in range(20)])
            unique = [place.send("unique", number, 5) for number in range(20)]
            wait_until(lambda: fleet.journal.ended(plain) >= 30, 10.0, fleet.logs)
            ledger.kill()
            gone = time.monotonic()
            plain.append(place.send("work", 200, 5))
            with pytest.raises(OperationalError):
                place.send("unique", 99, 5)
            wait_until(lambda: time.monotonic() - gone > away, away + 5.0)
            started = fleet.journal.read().starts.total()
            wait_until(lambda: time.monotonic() - gone > away + 0.5, 15.0)
            assert fleet.journal.read().starts.total() == started, "nobody knows whether it was revoked"
            ledger.start()
            back = time.time()
            ids = [*plain, *seated, *unique]
            place.wait_all(fleet, ids, 30.0)
            first = min(run.at for run in fleet.journal.runs if run.at > back)
            numbers = {each: number for of in (plain, seated, unique) for number, each in enumerate(of)}
            place.judge(fleet, numbers, allowed=0, recovery=first - back)
            assert not place.dead()
            again = [place.send("unique", number, 5) for number in range(20)]
            assert not set(again) & set(unique), "every lock was freed"
            place.wait_all(fleet, again, 10.0)
            assert sorted(node.below()) == below
            assert node.stop() == 0
