"""PostgreSQL is killed, its sessions are ended, other transactions get in the way."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from celeriac.exceptions import OperationalError
from tests.faults.fleet import Fleet, send_signal
from tests.faults.place import Place
from tests.faults.scenario import scenario
from tests.servers import PostgresServer, wait_until


@pytest.fixture
def durable_place(make_postgres: Callable[..., PostgresServer], tmp_path: Path) -> Iterator[Place]:
    """A PostgreSQL of this test's own, which keeps what it acknowledges."""
    server = make_postgres(durable=True)
    place = Place(server.url(schema="faults"), tmp_path, database=server)
    place.empty()
    yield place
    server.close()


def _send_many(place: Place, numbers: dict[str, int], rng: random.Random, count: int, longest: float) -> None:
    first = len(numbers)
    part = [(first + index, rng.uniform(1, longest)) for index in range(count)]
    numbers.update(zip(place.send_many("work", part), (number for number, _ in part), strict=True))


def _ended_more(fleet: Fleet, numbers: dict[str, int], more: int, seconds: float = 15.0) -> float:
    """Seconds until so many tasks more have ended, or all of them: a test that is late finds none that are open."""
    began, before = time.monotonic(), fleet.journal.ended(numbers)
    wanted = min(before + more, len(numbers))
    wait_until(lambda: fleet.journal.ended(numbers) >= wanted, seconds, fleet.logs)
    return time.monotonic() - began


@scenario(
    "broker",
    fault="PostgreSQL is killed and restarted",
    promise="work goes on within seconds of its return",
)
def test_postgres_is_killed_and_restarted(durable_place: Place, rng: random.Random, fault_scale: float) -> None:
    place, server = durable_place, durable_place.database
    assert server is not None
    numbers: dict[str, int] = {}
    gaps: list[float] = []
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        below = sorted(node.below())
        for turn in range(round(2 * fault_scale)):
            _send_many(place, numbers, rng, 120, 20)
            numbers[place.send("work", -turn, 1, countdown=rng.uniform(0.5, 2.0))] = -turn
            _ended_more(fleet, numbers, 20)
            server.kill()
            with pytest.raises(OperationalError):
                place.send("work", 0, 1)
            wait_until(lambda: "annot" in node.text(), 10.0, fleet.logs)
            server.start()
            began = time.monotonic()
            _send_many(place, numbers, rng, 10, 20)  # of the others none may be left
            _ended_more(fleet, numbers, 10)
            gaps.append(time.monotonic() - began)
        place.wait_all(fleet, list(numbers), 30.0)
        place.judge(fleet, numbers, allowed=4 * len(gaps), restarts=len(gaps), recovery=max(gaps))
        assert max(gaps) < 10.0
        assert sorted(node.below()) == below, f"a process ended\n{node.log()}"
        assert node.stop() == 0


@scenario(
    "broker",
    fault="all sessions of PostgreSQL are ended again and again (pg_terminate_backend)",
    promise="no process exits, no task is lost",
)
def test_sessions_are_ended_again_and_again(postgres_place: Place, rng: random.Random, fault_scale: float) -> None:
    place, server = postgres_place, postgres_place.database
    assert server is not None
    numbers: dict[str, int] = {}
    uncertain = 0
    with place.fleet() as fleet:
        node = fleet.start("-c", "2")
        below = sorted(node.below())
        for turn in range(round(10 * fault_scale)):
            _send_many(place, numbers, rng, 20, 15)
            server.terminate_all()
            try:
                numbers[place.send("work", -turn, 1)] = -turn
            except OperationalError as error:
                uncertain += error.uncertain
            _ended_more(fleet, numbers, 2)
        place.wait_all(fleet, list(numbers), 30.0)
        place.judge(fleet, numbers, allowed=4 * round(10 * fault_scale), uncertain=uncertain)
        assert sorted(node.below()) == below, f"a process ended\n{node.log()}"
        assert node.stop() == 0


@scenario(
    "broker",
    fault="other transactions lock leases, and are ended for being idle (idle_in_transaction_session_timeout)",
    promise="work waits and goes on",
)
def test_other_transactions_get_in_the_way(postgres_place: Place, rng: random.Random) -> None:
    place, server = postgres_place, postgres_place.database
    assert server is not None
    numbers: dict[str, int] = {}
    over = threading.Event()
    blocked = 0

    def disturb() -> None:
        nonlocal blocked
        chance = random.Random(7)
        while not over.is_set():
            with server.connect() as connection:
                connection.execute("SET idle_in_transaction_session_timeout = 200")
                connection.execute("BEGIN")
                rows = connection.execute(
                    f"SELECT id FROM {place.schema}.lease ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED".encode()
                ).fetchall()
                blocked += len(rows)
                over.wait(chance.uniform(0.0, 0.3))
                try:
                    connection.execute("ROLLBACK")
                except psycopg.Error:
                    pass  # it was idle for too long

    disturber = threading.Thread(target=disturb)
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "2")
        disturber.start()
        try:
            for _ in range(6):
                _send_many(place, numbers, rng, 40, 10)
                _ended_more(fleet, numbers, 10)
            place.wait_all(fleet, list(numbers), 60.0)
        finally:
            over.set()
            disturber.join()
        place.judge(fleet, numbers, allowed=0, blocked=blocked)
        assert blocked, "the disturbing transactions met some leases"
        assert node.stop() == 0


@scenario(
    "processes",
    fault="a child is killed while the server still works on its claim",
    promise="what is granted to the dead starts elsewhere at once, not when its lease of 30 s is over",
)
def test_a_claim_that_is_granted_to_the_dead(postgres_place: Place) -> None:
    place, server = postgres_place, postgres_place.database
    assert server is not None
    claiming = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%claim%'"
    with place.fleet(worker_lease=30) as fleet:
        node = fleet.start("-c", "1")
        wait_until(lambda: "ready" in node.text() and len(node.below()) == 2, 10.0, fleet.logs)
        victim = node.below()[-1]
        with server.connect("postgres") as other:
            other.autocommit = False
            other.execute(f"LOCK TABLE {place.schema}.lease IN EXCLUSIVE MODE".encode())
            task_id = place.send("work", 1, 1)
            wait_until(lambda: server.execute(claiming)[0][0] > 0, 10.0, fleet.logs)
            send_signal([victim], signal.SIGKILL)
            began = time.monotonic()
            wait_until(lambda: victim not in node.below(), 10.0, fleet.logs)
            other.rollback()
        place.wait_all(fleet, [task_id], 60.0)
        recovery = fleet.journal.started(task_id)[0].at - time.time() + time.monotonic() - began
        place.judge(fleet, {task_id: 1}, allowed=0, recovery=recovery)
        assert recovery < 10.0
        assert node.stop() == 0
