"""A Redis that is there and does not work: a replica after a failover, still loading, stalled, full under load."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from celeriac.exceptions import OperationalError
from tests.faults.fleet import Fleet
from tests.faults.load import Load
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.proxy import Proxy
from tests.servers import HOST, RedisServer, wait_until


def _first_sent_after(fleet: Fleet, load: Load, moment: float) -> float:
    """Seconds from then until the end of the first task that was sent later."""

    def ended() -> list[float]:
        late = {each for each, at in dict(load.sent).items() if at > moment}
        return [run.at for run in fleet.journal.read().runs if run.kind == "end" and run.id in late]

    return float(wait_until(ended, 10.0, fleet.logs)[0]) - moment


@scenario(
    "broker",
    fault="a failover: the address leads to the replica, the old master refuses writes (READONLY)",
    promise="workers and senders follow within a second, callers are told meanwhile",
)
def test_a_failover(make_redis: Callable[..., RedisServer], tmp_path: Path, rng: random.Random) -> None:
    quick = {"repl-diskless-sync-delay": "0"}
    with make_redis(config=quick) as master, make_redis() as replica, Proxy(HOST, master.port) as proxy:
        replica.command("REPLICAOF", HOST, master.port)
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", 10.0)
        url = master.url(port=proxy.port)
        place = Place(url, tmp_path)
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            with Load(place, rng) as load:
                load.until(50)
                # As an operator's failover does: no more writes, the replica catches up, the address moves.
                master.command("CONFIG", "SET", "min-replicas-to-write", 2)
                wait_until(lambda: _offset(replica, "slave_repl_offset") >= _offset(master, "master_repl_offset"), 10.0)
                replica.command("REPLICAOF", "NO", "ONE")
                proxy.upstream_port = replica.port
                master.command("REPLICAOF", HOST, replica.port)
                master.command("CONFIG", "SET", "min-replicas-to-write", 0)
                moved = time.time()
                recovery = _first_sent_after(fleet, load, moved)
                load.until(50)
            place.wait_all(fleet, list(load.numbers), 15.0)
            place.judge(fleet, load.numbers, allowed=8, refused=load.refused, recovery=recovery)
            assert recovery < 10.0
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0


def _offset(server: RedisServer, name: str) -> int:
    return int(server.info("replication")[name])


@scenario(
    "broker",
    fault="Redis is restarted and still loads its data (LOADING)",
    promise="callers are told, the first task is done within a second of its end",
)
def test_loading(make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    config = {"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    with make_redis(appendonly=True, config=config) as server:
        server.command("DEBUG", "POPULATE", 3000)  # a millisecond each
        server.command("BGREWRITEAOF")
        wait_until(lambda: server.info("persistence")["aof_rewrite_in_progress"] == "0", 10.0)
        place = Place(server.url(), tmp_path, server)
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            ids = place.send_many("work", [(number, 5) for number in range(400)])
            wait_until(lambda: fleet.journal.ended(ids) >= 50, 10.0, fleet.logs)
            server.kill()
            server._launch()
            refused = _refused(place, "LOADING")
            wait_until(server._ready, 20.0, server.log)
            ready = time.time()
            ids += place.send_many("work", [(number, 5) for number in range(400, 410)])  # others may all have ended
            wait_until(lambda: fleet.journal.ended(ids) == len(ids), 15.0, fleet.logs)
            recovery = min(run.at for run in fleet.journal.runs if run.at > ready) - ready
            place.judge(fleet, {each: number for number, each in enumerate(ids)}, allowed=4, recovery=recovery)
            assert refused
            assert recovery < 10.0
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0


def _refused(place: Place, word: str) -> bool:
    """Whether a sender with little patience meets this error."""
    impatient = place.through(broker_publish_timeout=0.5)
    try:
        wait_until(lambda: _error_of(impatient).find(word) >= 0, 15.0)
    except TimeoutError:
        return False
    return True


def _error_of(place: Place) -> str:
    try:
        place.send("work", 2, 1)
    except OperationalError as error:
        return str(error)
    return ""


@scenario(
    "broker",
    fault="Redis does nothing for 3 s (a slow command, a stalled machine)",
    promise="work goes on as soon as it answers, nothing runs twice",
)
def test_a_stalled_server(make_redis: Callable[..., RedisServer], tmp_path: Path, rng: random.Random) -> None:
    with make_redis() as server:
        place = Place(server.url(), tmp_path, server, worker_lease=30)
        with place.fleet() as fleet:
            node = fleet.start("-c", "2")
            with Load(place, rng) as load:
                load.until(50)
                server.command("DEBUG", "SLEEP", 3, timeout=10.0)
                recovery = _first_sent_after(fleet, load, time.time())
                load.until(50)
            place.wait_all(fleet, list(load.numbers), 15.0)
            place.judge(fleet, load.numbers, allowed=0, refused=load.refused, slowest=load.slowest, recovery=recovery)
            assert load.slowest < 12.0
            assert recovery < 10.0
            assert node.stop() == 0


@scenario(
    "broker",
    fault="three times as much is sent as Redis has room for (maxmemory), while workers drain it",
    promise="senders wait for room or are told within 5 s, nothing is lost",
)
def test_full_under_load(make_redis: Callable[..., RedisServer], tmp_path: Path, fault_scale: float) -> None:
    with make_redis(maxmemory="10mb") as server:
        place = Place(server.url(), tmp_path, server)
        numbers: dict[str, int] = {}
        slowest = 0.0
        full = refused = wrong = 0
        with place.fleet(worker_lease=30) as fleet:
            node = fleet.start("-c", "2")
            below = sorted(node.below())
            place.send_many("gated", [(str(tmp_path),)] * 2)
            wait_until(lambda: fleet.journal.read().starts.total() == 2, 10.0, fleet.logs)
            for number in range(round(400 * fault_scale)):
                began = time.monotonic()
                try:
                    numbers[place.send("work", number, 10, headers={"ballast": "x" * 50_000})] = number
                except OperationalError as error:
                    refused += 1
                    wrong += error.uncertain or "memory" not in str(error)
                slowest = max(slowest, time.monotonic() - began)
                if int(server.info("memory")["used_memory"]) > 9_500_000:
                    full += 1
                    Path(tmp_path, "all").touch()  # now the workers drain it
            place.wait_all(fleet, list(numbers), 20.0)
            place.judge(fleet, numbers, allowed=0, refused=refused, full=full, slowest=slowest)
            assert full, "it was never full"
            assert not wrong, "it was refused for want of memory, and surely not sent"
            assert slowest < 12.0
            assert sorted(node.below()) == below, node.log()
            assert node.stop() == 0


@scenario(
    "broker",
    fault="Redis evicts keys when it is full (`maxmemory-policy` is not `noeviction`)",
    promise="the worker warns at its start, for evicted tasks are lost",
)
def test_eviction_is_warned_of(make_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    with make_redis(config={"maxmemory": "50mb", "maxmemory-policy": "allkeys-lru"}) as server:
        place = Place(server.url(), tmp_path, server)
        with place.fleet(worker_lease=30) as fleet:
            node = fleet.start("-c", "1")
            assert "allkeys-lru" in node.logged("set it to noeviction")
            task = place.send("work", 1, 1)
            place.wait_all(fleet, [task], 10.0)
            place.judge(fleet, {task: 1}, allowed=0)
            assert node.stop() == 0
