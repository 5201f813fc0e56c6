"""``app.transaction()`` where the broker keeps its queues in the application's own PostgreSQL: no outbox, no relay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celeriac import Celery, chord, signals
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import ImproperlyConfigured
from tests.databases import empty_database
from tests.integration.applications import KINDS, make_application
from tests.servers import PostgresServer


@pytest.fixture(params=[kind for kind in KINDS if kind.endswith(("psycopg", "postgresql"))])
def application(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[Any]:
    made = make_application(request.param, empty_database(postgres_server, "direct"))
    yield made
    made.close()


@pytest.fixture
def app(application: Any) -> Iterator[Celery]:
    with Celery("shop", broker=application.url, backend=application.url) as app:
        app.task(name="add", shared=False)(lambda a, b=0: a + b)
        app.task(name="total", shared=False)(lambda numbers: sum(numbers))
        app.sender.publisher.depth(["celery"], timeout=30.0)  # makes the schema
        yield app


def ready(app: Celery) -> int:
    return app.sender.publisher.depth(["celery"], timeout=30.0)["celery"].ready


def test_commit_and_rollback(app: Celery, application: Any) -> None:
    def work(fails: bool) -> None:
        with application.begin() as connection, app.transaction(connection):
            application.order("one")
            app.tasks["add"].delay(1, 2)
            assert ready(app) == 0
            if fails:
                raise KeyError

    with pytest.raises(KeyError):
        work(True)
    assert (application.orders(), ready(app)) == ([], 0)
    work(False)
    assert (application.orders(), ready(app), application.waiting()) == (["one"], 1, 0)


def test_a_savepoint_takes_its_own_along(app: Celery, application: Any) -> None:
    def work() -> None:
        with application.savepoint():
            app.tasks["add"].delay(2)
            raise KeyError

    with application.begin() as connection, app.transaction(connection):
        application.order("one")
        app.tasks["add"].delay(1)
        with pytest.raises(KeyError):
            work()
    assert ready(app) == 1


def test_workers_see_it_at_the_commit(app: Celery, application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.brokers.postgres.claims.LOOK_AGAIN", 60.0)  # so that only being woken helps
    seen: list[Any] = []
    signals.after_task_publish.connect(receiver := lambda **_: seen.append(1), weak=False)
    try:
        with start_worker(app):
            with application.begin() as connection, app.transaction(connection):
                application.order("one")
                single = app.tasks["add"].delay(1, 2)
                body = chord([app.tasks["add"].s(n) for n in range(10)])(app.tasks["total"].s())
            assert single.get(timeout=30.0) == 3
            assert body.get(timeout=60) == 45
    finally:
        signals.after_task_publish.disconnect(receiver)
    assert len(seen) >= 11, "nobody else tells"


def test_a_connection_that_commits_by_itself_is_refused(app: Celery, application: Any) -> None:
    with app.transaction(application.by_itself()), pytest.raises(ImproperlyConfigured, match="commits each statement"):
        app.tasks["add"].delay(1)
    assert ready(app) == 0
