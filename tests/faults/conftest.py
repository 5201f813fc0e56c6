"""Where faults are tried: one private Redis and one PostgreSQL for all tests that do not harm them, one SQLite file for
each test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.faults import scenario
from tests.faults.journal import REPORTED
from tests.faults.machines import SERVERS, Machines, machines_with, may_be_denied
from tests.faults.network import obstacle
from tests.faults.place import Place, RabbitPlace
from tests.servers import PostgresServer, RabbitServer, RedisCluster, RedisServer

#: Parameter of ``place`` → the fixture that makes it.
PLACES = {
    "redis": "redis_place",
    "sqlite": "sqlite_place",
    "postgres": "postgres_place",
    "queues+redis": "beside_place",
    "cluster": "cluster_place",
    "rabbitmq": "rabbitmq_place",
}

#: Tests of ``place`` that are run on every server each time: who dies when, and what becomes of messages. The others
#: ask more of the worker than of its server: they are run on Redis, and on further servers by ``--extended``.
ON_ALL = frozenset(
    {
        "test_kills_every_second_lose_nothing",
        "test_chords_under_kills",
        "test_a_rolling_deploy",
        "test_a_whole_worker_is_killed",
        "test_a_task_that_kills_its_process_disturbs_no_other",
        "test_beats_are_killed_and_started_at_random",
    }
)

#: Those that ask whether one step of the server is one.
ON_SQLITE = frozenset({"test_a_producer_killed_in_the_middle_sends_all_or_nothing"})

#: Those that are run on RabbitMQ by ``--extended``.
ON_RABBITMQ = frozenset(
    {
        "test_retries_chains_and_coroutines_under_kills",
        "test_early_acknowledged_tasks_never_start_twice",
        "test_sent_before_any_worker",
        "test_sigterm_under_load",
        "test_no_process_outlives_its_supervisor",
    }
)

#: Those of what needs the ledger, which RabbitMQ finds in Redis: run there each time.
ON_RABBITMQ_BESIDE = frozenset(
    {
        "test_a_killed_holder_keeps_its_lock_until_it_ends",
        "test_a_task_that_kills_its_worker_frees_its_lock_in_the_end",
        "test_a_producer_killed_while_it_sends_keys",
        "test_locks_under_kills",
    }
)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """An empty broker with results: see ``pytest_generate_tests``."""
    made: Place = request.getfixturevalue(PLACES[request.param])
    return made


@pytest.fixture
def rabbitmq_place(rabbitmq_server: RabbitServer, rabbitmq_vhost: str, redis_url: str, tmp_path: Path) -> RabbitPlace:
    """A virtual host of RabbitMQ; results and ledger in Redis."""
    return RabbitPlace(rabbitmq_server, rabbitmq_vhost, tmp_path, redis_url)


@pytest.fixture
def beside_place(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> Place:
    """Queues that come back by themselves and keep no ledger; results and ledger in another database."""
    there = redis_server.url(db=1)
    return Place(f"queues+{redis_url}", tmp_path, redis_server, result_backend=there)


@pytest.fixture
def cluster_place(redis_cluster: RedisCluster, tmp_path: Path) -> Place:
    """A cluster of three nodes that this test must not harm."""
    redis_cluster.flush()
    return Place(redis_cluster.url(), tmp_path)


@pytest.fixture
def redis_place(redis_server: RedisServer, redis_url: str, tmp_path: Path) -> Place:
    """An empty Redis that this test must not harm."""
    return Place(redis_url, tmp_path, redis_server)


@pytest.fixture
def postgres_place(postgres_server: PostgresServer, postgres_url: str, tmp_path: Path) -> Place:
    """A schema of a PostgreSQL that this test must not harm."""
    place = Place(postgres_url, tmp_path, database=postgres_server)
    place.empty()  # makes the schema
    return place


@pytest.fixture
def sqlite_place(sqlite_url: str, tmp_path: Path) -> Place:
    """A SQLite file of this test's own."""
    return Place(sqlite_url, tmp_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """On each broker; in a module with ``BESIDE`` also where the ledger is beside the queues, and in one with
    ``CLUSTER`` on a Redis Cluster."""
    if "place" in metafunc.fixturenames:
        name = metafunc.function.__name__
        further: list[str] = ["sqlite", "postgres"]
        further += ["queues+redis"] if getattr(metafunc.module, "BESIDE", False) else []
        further += ["cluster"] if getattr(metafunc.module, "CLUSTER", False) else []
        further += ["rabbitmq"] if name in ON_ALL | ON_RABBITMQ | ON_RABBITMQ_BESIDE else []
        always = set(further) - {"queues+redis", "cluster"} if name in ON_ALL else set()
        always |= {"sqlite"} if name in ON_SQLITE else set()
        always |= {"rabbitmq"} if name in ON_RABBITMQ_BESIDE else set()
        places = [pytest.param(each, marks=() if each in always else pytest.mark.extended) for each in further]
        metafunc.parametrize("place", ["redis", *places], indirect=True)
    if "machines" in metafunc.fixturenames:
        servers = [
            pytest.param(each, marks=() if each == "redis" else pytest.mark.extended) for each in sorted(SERVERS)
        ]
        metafunc.parametrize("machines", servers, indirect=True)


@pytest.fixture
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machines]:
    """Hosts of their own, one with an empty broker; this thread is on one of them."""
    installed, server = SERVERS[request.param]
    if not installed():
        missing(request.param)
    if (reason := obstacle()) and may_be_denied():
        pytest.skip(reason)
    elif reason:
        missing(reason)
    with machines_with(server(), tmp_path) as found:
        yield found


def pytest_runtest_setup(item: pytest.Item) -> None:
    REPORTED.clear()
    until = item.config.option.fault_until
    if until is not None and time.time() > until and item.path.parent == Path(__file__).parent:
        pytest.skip("the minutes are over")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """After a scenario's test: its row."""
    outcome = yield
    mark = item.get_closest_marker("fault")
    rows = item.config.option.fault_rows
    if call.when == "call" and mark is not None and rows is not None and not outcome.skipped:
        seed = item.config.option.seed
        scenario.write(rows, scenario.row(mark.kwargs, REPORTED, test=item.name, seed=seed, passed=outcome.passed))
    return outcome
