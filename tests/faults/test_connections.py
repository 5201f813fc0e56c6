"""Redis dies and comes back, connections break or fall silent: nothing is lost, and work goes on at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from celeriac.exceptions import OperationalError
from tests.faults.fleet import Fleet
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.proxy import Proxy
from tests.servers import HOST, RedisServer, wait_until


@pytest.fixture(scope="module")
def durable(make_redis: Callable[..., RedisServer]) -> RedisServer:
    return make_redis(appendonly=True)


@pytest.fixture
def durable_place(durable: RedisServer, tmp_path: Path) -> Place:
    """A Redis that keeps its data, emptied."""
    durable.start()
    durable.command("FLUSHALL")
    return Place(durable.url(), tmp_path, durable)


def _until_run(fleet: Fleet, place: Place, numbers: dict[str, int], seconds: float = 10.0) -> float:
    """Send one task and wait for its end; returns the seconds it took."""
    began = time.monotonic()
    probe = place.send("work", -1, 1)
    numbers[probe] = -1
    wait_until(lambda: fleet.journal.ended([probe]), seconds, lambda: f"a task runs again\n{fleet.logs()}")
    return time.monotonic() - began


def _until_ended(fleet: Fleet, ids: list[str], count: int) -> None:
    """Wait until so many of these have ended."""
    wait_until(lambda: fleet.journal.ended(ids) >= count, 15.0, lambda: f"{count} tasks end\n{fleet.logs()}")


@scenario(
    "network",
    fault="every connection is reset, dozens of times, also in the middle of an answer",
    promise="no process ends, callers are told, the next task runs within a second",
)
def test_connections_are_cut_again_and_again(durable_place: Place, rng: random.Random, fault_scale: float) -> None:
    """Workers and producers lose their connections, sometimes in the middle of an answer."""
    assert durable_place.server is not None
    numbers: dict[str, int] = {}
    gaps: list[float] = []
    errors = unknown = 0
    cuts = round(40 * fault_scale)
    with Proxy(HOST, durable_place.server.port) as proxy:
        url = durable_place.server.url(port=proxy.port)
        sender = Place(url, durable_place.folder)
        with durable_place.fleet(broker_url=url, result_backend=url, worker_lease=30) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            for number in range(cuts):
                part = [(number * 5 + index, rng.uniform(1, 15)) for index in range(5)]
                numbers.update(zip(durable_place.send_many("work", part), (each for each, _ in part), strict=True))
                (proxy.cut_reply if rng.random() < 0.3 else proxy.cut)()
                try:
                    numbers[sender.send("work", number, 1)] = number
                except OperationalError as error:
                    errors += 1
                    unknown += error.uncertain
                gaps.append(_until_run(fleet, durable_place, numbers))
            durable_place.wait_all(fleet, list(numbers), 20.0)
            durable_place.judge(
                fleet, numbers, allowed=2 * cuts, cuts=cuts, recovery=max(gaps), errors=errors, uncertain=unknown
            )
            assert max(gaps) < 8.0, "it waited for a lease"
            assert errors == unknown, "what surely was not sent can be sent again"
            assert sorted(node.below()) == below, f"a process ended\n{node.log()}"
            assert node.stop() == 0


@scenario(
    "broker",
    fault="Redis is killed and restarted with its data",
    promise="work goes on within a second of its return",
)
def test_redis_is_killed_and_restarted(durable_place: Place, rng: random.Random, fault_scale: float) -> None:
    server = durable_place.server
    assert server is not None
    numbers: dict[str, int] = {}
    gaps: list[float] = []
    refused = unknown = 0
    with durable_place.fleet() as fleet:
        node = fleet.start("-c", "2")
        below = sorted(node.below())
        for turn in range(round(2 * fault_scale)):
            part = [(turn * 120 + index, rng.uniform(1, 20)) for index in range(120)]
            ids = durable_place.send_many("work", part)
            numbers.update(zip(ids, (each for each, _ in part), strict=True))
            countdown = rng.uniform(0.5, 2.0)
            numbers[durable_place.send("work", turn, 1, countdown=countdown)] = turn
            _until_ended(fleet, ids, 20)
            server.kill()
            try:
                durable_place.send("work", 0, 1)
            except OperationalError as error:
                refused += 1
                unknown += error.uncertain
            wait_until(lambda: "refused" in node.text() or "Cannot" in node.text(), 15.0)
            server.start()
            began = time.monotonic()
            fresh = durable_place.send_many("work", [(turn, 1)] * 10)  # of the others none may be left
            numbers.update(dict.fromkeys(fresh, turn))
            _until_ended(fleet, fresh, 10)
            gaps.append(time.monotonic() - began)
        durable_place.wait_all(fleet, list(numbers), 20.0)
        durable_place.judge(
            fleet,
            numbers,
            allowed=4 * len(gaps),
            restarts=len(gaps),
            refused=refused,
            uncertain=unknown,
            recovery=max(gaps),
        )
        assert refused == len(gaps)
        assert max(gaps) < 8.0
        assert sorted(node.below()) == below, f"a process ended\n{node.log()}"
        assert node.stop() == 0


@scenario(
    "network",
    fault="the peer is gone without a word (half-open)",
    promise="found within 10 s, what ran meanwhile is kept",
)
def test_a_silent_server_is_found(redis_place: Place) -> None:
    """Connections that stay open and bring nothing; ``test_network.py`` has those that bring something later."""
    server = redis_place.server
    assert server is not None
    with Proxy(HOST, server.port) as proxy:
        url = server.url(port=proxy.port)
        with redis_place.fleet(broker_url=url, result_backend=url, worker_lease=30) as fleet:
            node = fleet.start("-c", "1")
            below = sorted(node.below())
            ids = redis_place.send_many("work", [(number, 20) for number in range(100)])
            wait_until(lambda: fleet.journal.ended(ids) >= 5, 10.0, fleet.logs)
            began = time.time()
            proxy.half_open()
            ids += redis_place.send_many("work", [(number, 20) for number in range(100, 120)])
            redis_place.wait_all(fleet, ids, 40.0)
            moments = [began, *(run.at for run in fleet.journal.runs if run.at > began)]
            silence = max(after - before for before, after in pairwise(moments))
            redis_place.judge(
                fleet,
                {each: number for number, each in enumerate(ids)},
                allowed=1,
                recovery=silence,
            )
            assert silence < 20.0
            assert sorted(node.below()) == below
            assert node.stop() == 0


@scenario(
    "broker",
    fault="Redis is restarted without its data",
    promise="what was in it is gone, what is sent afterwards runs",
)
def test_all_data_are_gone(make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """Restarted without persistence: what was waiting is lost with the server, what comes afterwards runs."""
    with make_redis() as server:
        place = Place(server.url(), tmp_path, server)
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            ids = place.send_many("work", [(number, 20) for number in range(100)])
            wait_until(lambda: fleet.journal.ended(ids) >= 10, 10.0, fleet.logs)
            server.kill()
            server.start()
            began = time.time()
            fresh = place.send_many("work", [(number, 5) for number in range(50)])
            place.wait_all(fleet, fresh, 20.0)
            recovery = time.time() - began
            place.judge(fleet, {each: number for number, each in enumerate(fresh)}, allowed=0, recovery=recovery)
            assert recovery < 12.0
            assert sorted(node.below()) == below
            assert node.stop() == 0


@scenario(
    "broker",
    fault="Redis is full when the worker starts",
    promise="the sender is told, the worker drains it",
)
def test_a_full_redis_can_be_drained(make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    with make_redis(maxmemory="12mb") as server:
        place = Place(server.url(), tmp_path, server)
        numbers: dict[str, int] = {}
        error = place.fill(numbers, 20_000)
        assert "memory" in str(error)
        assert not error.uncertain, "it was refused: it has not been sent"
        with place.fleet(worker_lease=30) as fleet:
            node = fleet.start("-c", "2")
            place.wait_all(fleet, list(numbers), 20.0)
            kept = {each: number for each, number in numbers.items() if number % 2}
            place.judge(fleet, kept, allowed=0, sent_in_all=len(numbers))
            assert place.send("work", 1, 1)
            assert fleet.journal.again(list(numbers)) == 0
            assert node.stop() == 0
