"""The outbox under fault: what was committed is published once, whoever dies; what was not never is."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from celeriac.client.relay import Relay
from celeriac.model.outbox import Fault, Standing
from celeriac.outbox.stores import store_of
from tests.databases import empty_database
from tests.faults import shop
from tests.faults.fleet import ROOT
from tests.faults.journal import report
from tests.faults.place import Place
from tests.faults.project import CONF, JOURNAL
from tests.faults.scenario import scenario
from tests.servers import PostgresServer, RedisServer, wait_until

ROWS = 600


@pytest.fixture(params=["postgresql", pytest.param("sqlite", marks=pytest.mark.extended)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database with an outbox."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'application.db'}"
    else:
        url = empty_database(request.getfixturevalue("postgres_server"), "shop")
    store = store_of(url)
    store.create()
    store.close()
    return url


@pytest.fixture
def there(redis_place: Place, database: str) -> Place:
    """An empty Redis, and an app whose transactions are in that database."""
    return redis_place.through(outbox_url=database)


def standing(url: str) -> Standing:
    store = store_of(url)
    try:
        return store.standing()
    finally:
        store.close()


def commit(place: Place, url: str, count: int) -> list[str]:
    """Send so many tasks in one transaction; their ids."""
    connection = shop.connect(url)
    with place.app.transaction(connection):
        ids = [place.send("work", number, 0) for number in range(count)]
    connection.commit()
    connection.close()
    return ids


def published(server: RedisServer) -> Counter[str]:
    """The ids that lie on the ready list, nobody having taken any."""
    return Counter(json.loads(each)["headers"]["id"] for each in server.command("LRANGE", "celery", 0, -1))


class Process:
    """A process of the application's or of ours, which dies with the tests."""

    def __init__(self, place: Place, *command: str) -> None:
        self.log = place.folder / f"process-{random.randrange(10**9)}.log"
        environment = {CONF: json.dumps(place.conf), JOURNAL: str(place.folder / "journal")}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", *command],
                cwd=ROOT,
                env={**os.environ, **environment, "PYTHONPATH": str(ROOT / "src")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        assert self.process.poll() is None, self.log.read_text()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60.0) == 0, self.log.read_text()


RELAY = ("celeriac", "-A", "tests.faults.project", "outbox", "relay")


@pytest.fixture
def run(there: Place) -> Iterator[Callable[..., Process]]:
    """Start processes; all end with the test."""
    made: list[Process] = []

    def start(*command: str) -> Process:
        made.append(Process(there, *command))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()


@pytest.mark.slow
@scenario(
    "producers",
    fault="the application is killed in its transactions, again and again",
    promise="each committed order's task runs, none that was rolled back",
)
def test_a_killed_application(
    there: Place, database: str, run: Callable[..., Process], rng: random.Random, fault_scale: float
) -> None:
    shop.connect(database).close()
    with there.fleet(worker_lease=30) as fleet:
        fleet.start("-c", "2", wait=False)
        for _ in range(round(4 * fault_scale)):
            goal = len(shop.orders(database)) + rng.randrange(5, 60)
            taking = run("tests.faults.shop", database, str(rng.random()))
            wait_until(partial(_taken, database, goal), 60.0, taking.log.read_text)
            taking.kill()
        # A server may end the commit of a client that is dead.
        wait_until(lambda: standing(database).waiting == 0, 60.0, fleet.logs)
        ordered = shop.orders(database)
        there.wait_all(fleet, list(ordered), 30.0)
        runs = fleet.journal.read()
        strangers = {each.id for each in runs.runs} - set(ordered)
        again = sum(len(runs.started(name)) > 1 for name in ordered)
        report(place=_kind(database), sent=len(ordered), lost=0, again=again, kills=round(4 * fault_scale))
        assert (strangers, again) == (set(), 0), "rolled back, and run; or run twice"


def _kind(url: str) -> str:
    return f"redis, outbox on {url.partition(':')[0]}"


def _relays(process: Process) -> bool:
    return ": relaying" in process.log.read_text()


def _taken(url: str, goal: int) -> bool:
    return len(shop.orders(url)) >= goal


def _left(url: str, goal: int) -> bool:
    return standing(url).waiting <= goal


@pytest.mark.slow
@scenario(
    "producers",
    fault="relays are killed at any moment",
    promise="each row published once",
)
def test_killed_relays(
    there: Place, database: str, run: Callable[..., Process], rng: random.Random, fault_scale: float
) -> None:
    assert there.server is not None
    server = there.server
    ids: list[str] = []
    kills = round(6 * fault_scale)
    for _ in range(kills):
        ids += commit(there, database, ROWS)
        relay = run(*RELAY)
        goal = standing(database).waiting - rng.randrange(50, 500)
        wait_until(partial(_left, database, goal), 60.0, relay.log.read_text)
        relay.kill()
    run(*RELAY)
    wait_until(lambda: standing(database).waiting == 0, 60.0)
    found = published(server)
    lost, again = len(set(ids) - set(found)), found.total() - len(found)
    report(place=_kind(database), sent=len(ids), lost=lost, again=again, kills=kills)
    assert found == Counter(ids)


def test_a_relay_that_dies_between_publishing_and_forgetting(there: Place, database: str) -> None:
    assert there.server is not None
    ids = commit(there, database, 10)

    class Dies(Exception):
        pass

    store = store_of(database)

    def die(done: list[str], faults: list[Fault]) -> None:
        raise Dies

    store.settle = die  # type: ignore[method-assign,assignment]
    relay = Relay(there.app, store, "dying")
    with pytest.raises(Dies):
        relay.turn()
    relay.close()
    assert published(there.server) == Counter(ids), "all are out"
    assert standing(database).waiting == 10, "and nobody has forgotten them"
    other = Relay(there.app, store_of(database), "next")
    assert not other.turn()
    other.close()
    assert published(there.server) == Counter(ids), "once"
    assert standing(database).waiting == 0
    assert not there.server.command("KEYS", "celeriac:*outbox*"), "the keys are forgotten with the rows"


def test_four_relays_share_the_rows(there: Place, database: str, run: Callable[..., Process]) -> None:
    assert there.server is not None
    relays = [run(*RELAY) for _ in range(4)]
    for relay in relays:
        wait_until(partial(_relays, relay), 60.0, relay.log.read_text)
    ids = commit(there, database, ROWS)
    wait_until(lambda: standing(database).waiting == 0, 60.0, lambda: relays[0].log.read_text())
    assert published(there.server) == Counter(ids)
    for relay in relays:
        relay.stop()


@pytest.mark.slow
def test_the_broker_is_away_for_a_while(make_redis: Callable[..., RedisServer], tmp_path: Path, database: str) -> None:
    server = make_redis(appendonly=True)
    place = Place(server.url(), tmp_path, server, outbox_url=database)
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "1")
        node.logged(": relaying", 60.0)  # its agent may be ready later than its child
        server.kill()
        ids = commit(place, database, 50)
        node.logged("nothing is relayed", 60.0)
        assert standing(database).waiting == 50
        server.start()
        place.wait_all(fleet, ids, 20.0)
        assert all(len(fleet.journal.read().started(name)) == 1 for name in ids)
        wait_until(lambda: standing(database) == Standing(), 15.0)
    server.close()


@pytest.mark.slow
def test_the_database_restarts(
    redis_place: Place, make_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    server = make_postgres()
    url = empty_database(server, "shop")
    place = redis_place.through(outbox_url=url)
    store: Any = store_of(url)
    store.create()
    store.close()
    with place.fleet() as fleet:
        node = fleet.start("-c", "1")
        first = commit(place, url, 5)
        place.wait_all(fleet, first, 15.0)
        server.stop()
        node.logged("nothing is relayed", 60.0)
        server.start()
        second = commit(place, url, 5)
        place.wait_all(fleet, second, 15.0)
    server.close()
