"""Random workflows on a real worker, with PostgreSQL for messages, for results, or for both: the same values as by
plain recursion."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from celeriac import Celery, chord, group
from celeriac.contrib.testing.worker import start_worker
from tests.servers import PostgresServer
from tests.workflows.simulator import make_app
from tests.workflows.test_property import value_of
from tests.workflows.trees import NOTHING, Tree, workflows

_MIXES = ["one database", "two schemas", "results on Redis", "messages on Redis"]


@pytest.fixture(params=_MIXES)
def app(request: pytest.FixtureRequest, postgres_server: PostgresServer, postgres_url: str) -> Iterator[Celery]:
    """An app with the tasks of `trees.py`."""
    broker = backend = postgres_url
    if request.param == "two schemas":
        backend = postgres_server.url(schema=f"test_{uuid.uuid4().hex[:12]}")
    elif request.param == "results on Redis":
        backend = request.getfixturevalue("redis_url")
    elif request.param == "messages on Redis":
        broker = request.getfixturevalue("redis_url")
    app = make_app(f"workflows-{uuid.uuid4().hex[:8]}", apart=False)
    app.conf.update(broker_url=broker, result_backend=backend, worker_unknown_task_park=0.01)
    yield app
    app.close()


def _trees(count: int) -> list[Tree]:
    """Drawn before a worker runs: its threads draw random numbers too."""
    found: list[Tree] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    @given(tree=workflows())
    def draw(tree: Tree) -> None:
        found.append(tree)

    draw()
    return [tree for tree in found if "ignores" not in str(tree)]


@pytest.mark.slow
def test_random_workflows(app: Celery) -> None:
    trees = _trees(60)
    with start_worker(app, perform_ping_check=False):
        sent = [(tree, tree.sig(app).apply_async()) for tree in trees]
        for tree, result in sent:
            result.get(timeout=60, propagate=False)
            assert value_of(result, silent=False) == tree.run(NOTHING), str(tree)


@pytest.mark.slow
def test_chords_in_chords(app: Celery) -> None:
    plain = app.tasks["sim.plain"]
    with start_worker(app, perform_ping_check=False):
        for size in (1, 2, 50):
            inner = [chord([plain.s(number) for number in range(size)], plain.s(-1)) for _ in range(3)]
            result = chord(group(inner), plain.s(-2)).apply_async()
            members = [-1, [[number] for number in range(size)]]
            assert result.get(timeout=30) == [-2, [members] * 3]
