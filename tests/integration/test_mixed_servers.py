"""Random workflows on a real worker, with messages and results on any two servers: the same values as by plain
recursion."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from celeriac import Celery, chord, group
from celeriac.contrib.testing.worker import start_worker
from tests.workflows.simulator import make_app
from tests.workflows.test_property import value_of
from tests.workflows.trees import NOTHING, Tree, workflows

#: Where messages are, and where results: any two go together.
_MIXES = [
    ("sqlite", "redis"),
    ("redis", "postgres"),
    ("postgres", "postgres"),
    ("rabbitmq", "redis"),
    ("rabbitmq", "postgres"),
    ("cluster", "cluster"),
]
_FURTHER = [
    ("redis", "redis"),
    ("redis", "sqlite"),
    ("sqlite", "sqlite"),
    ("postgres", "a schema of its own"),
    ("postgres", "redis"),
    ("cluster", "redis"),
]


@pytest.fixture(
    params=[*_MIXES, *(pytest.param(each, marks=pytest.mark.extended) for each in _FURTHER)],
    ids=lambda each: " + ".join(each),
)
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    """An app with the tasks of `trees.py`."""
    broker, backend = request.param
    app = make_app(f"workflows-{uuid.uuid4().hex[:8]}", apart=False)
    app.conf.update(
        broker_url=_url(request, broker),
        result_backend=_url(request, backend),
        worker_unknown_task_park=0.01,
    )
    yield app
    app.close()


def _url(request: pytest.FixtureRequest, kind: str) -> str:
    """An empty place on a server of that kind: the same one when asked again."""
    make = request.getfixturevalue
    if kind == "cluster":
        make("redis_cluster").flush()
        return make("redis_cluster").url()
    if kind == "a schema of its own":
        return make("postgres_server").url(schema=f"test_{uuid.uuid4().hex[:12]}")
    return make(f"{kind}_url")


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
    trees = _trees(40)
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
            assert result.get(timeout=60) == [-2, [members] * 3]
