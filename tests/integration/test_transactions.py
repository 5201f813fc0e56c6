"""``app.transaction()`` with each kind of connection: what commits is sent, what does not is not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chain, chord, group, signals
from celeriac.client.relay import Relay
from celeriac.contrib.testing.worker import start_worker
from celeriac.exceptions import ImproperlyConfigured
from celeriac.outbox.stores import store_of
from tests.databases import empty_database
from tests.integration.applications import KINDS, Django, make_application
from tests.servers import wait_until

_numbers = itertools.count()


@pytest.fixture(params=KINDS)
def application(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    kind: str = request.param
    if kind.endswith(("psycopg", "postgresql")):
        url = empty_database(request.getfixturevalue("postgres_server"), "application")
    else:
        url = f"sqlite:///{tmp_path / 'application.db'}"
    made = make_application(kind, url)
    yield made
    made.close()


@pytest.fixture
def app(application: Any) -> Iterator[Celery]:
    with Celery("shop", broker=f"memory://transactions-{next(_numbers)}", outbox_url=application.url) as app:
        app.task(name="add", shared=False)(lambda a, b=0: a + b)
        app.task(name="total", shared=False)(lambda numbers: sum(numbers))
        yield app


def ready(app: Celery, queue: str = "celery") -> int:
    return app.sender.publisher.depth([queue], timeout=30.0)[queue].ready


def relayed(app: Celery, application: Any) -> int:
    """What a relay publishes now."""
    relay = Relay(app, store_of(application.url), "here")
    try:
        while relay.turn():
            pass
    finally:
        relay.close()
    assert application.waiting() == 0
    return int(relay.stats()["relayed"])


class Oops(Exception):
    pass


def test_what_commits_is_sent(app: Celery, application: Any) -> None:
    with application.begin() as connection, app.transaction(connection):
        application.order("one")
        result = app.tasks["add"].delay(1, 2)
        assert ready(app) == application.waiting() == 0, "before the commit"
    assert (application.orders(), application.waiting(), ready(app)) == (["one"], 1, 0), "after it, without a relay"
    assert relayed(app, application) == 1
    assert ready(app) == 1
    assert result.state == "PENDING"


def test_what_is_rolled_back_is_not(app: Celery, application: Any) -> None:
    def work() -> None:
        with application.begin() as connection, app.transaction(connection):
            application.order("one")
            app.tasks["add"].delay(1, 2)
            chord([app.tasks["add"].s(1), app.tasks["add"].s(2)])(app.tasks["total"].s())
            raise Oops

    with pytest.raises(Oops):
        work()
    assert (application.orders(), application.waiting(), relayed(app, application), ready(app)) == ([], 0, 0, 0)
    app.tasks["add"].delay(1, 2)
    assert ready(app) == 1, "outside of the block all is as ever"


def test_a_savepoint_takes_its_own_along(app: Celery, application: Any) -> None:
    def work() -> None:
        with application.savepoint():
            application.order("two")
            app.tasks["add"].delay(2)
            raise Oops

    with application.begin() as connection, app.transaction(connection):
        application.order("one")
        app.tasks["add"].delay(1)
        with pytest.raises(Oops):
            work()
        with application.savepoint():
            application.order("three")
            app.tasks["add"].delay(3)
    assert application.orders() == ["one", "three"]
    assert relayed(app, application) == 2


def test_blocks_in_blocks(app: Celery, application: Any) -> None:
    with application.begin() as connection, app.transaction(connection):
        application.order("one")
        app.tasks["add"].delay(1)
        with app.transaction(connection):
            app.tasks["add"].delay(2)
        app.tasks["add"].delay(3)
        with Celery("other", broker=f"memory://transactions-{next(_numbers)}") as other:
            other.send_task("elsewhere")
            assert ready(other) == 1, "another app sends as ever"
    assert relayed(app, application) == 3


def test_a_connection_that_commits_by_itself_is_refused(app: Celery, application: Any) -> None:
    connection = application.by_itself()
    with app.transaction(connection), pytest.raises(ImproperlyConfigured, match="commits each statement by itself"):
        app.tasks["add"].delay(1)
    assert application.waiting() == ready(app) == 0


def test_everything_that_sends(app: Celery, application: Any) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    with application.begin() as connection, app.transaction(connection):
        application.order("one")
        add.apply_async((1,), countdown=60, queue="other", priority=3)
        app.send_task("unknown.here")
        group([add.s(n) for n in range(3)])()
        chain(add.s(1), add.s(2))()
        chord([add.s(n) for n in range(4)])(total.s())
        app.send_many([add.s(n) for n in range(250)], chunk=100)
        app.send_many([add.s(n) for n in range(25)], chunk=10, together=True)
        add.delay_many([(n,) for n in range(5)])
        if isinstance(application, Django):  # which refuses to be called on a loop
            add.delay(1)
        else:
            asyncio.run(add.adelay(1))
    assert ready(app) == 0
    assert relayed(app, application) == 1 + 1 + 3 + 1 + 5 + 250 + 25 + 5 + 1, "the chord is a row too"
    assert ready(app) == 1 + 3 + 1 + 4 + 250 + 25 + 5 + 1
    assert app.sender.publisher.depth(["other"], timeout=30.0)["other"].scheduled == 1


def test_order_and_options_survive(app: Celery, application: Any) -> None:
    add, sent = app.tasks["add"], []
    with application.begin() as connection, app.transaction(connection):
        application.order("one")
        for number in range(30):
            options = {"countdown": 100.0, "headers": {"mine": number}, "priority": number % 10, "expires": 1000}
            sent.append(add.apply_async((number,), **options).id)
    seen = []
    signals.after_task_publish.connect(receiver := lambda headers, **_: seen.append(headers), weak=False)
    try:
        assert relayed(app, application) == 30
    finally:
        signals.after_task_publish.disconnect(receiver)
    assert [headers["id"] for headers in seen] == sent, "in the order of their sends"
    assert [headers["mine"] for headers in seen] == list(range(30))
    assert all(headers["eta"] and headers["expires"] for headers in seen)


def test_receivers_hear_of_it_when_it_is_published(app: Celery, application: Any) -> None:
    seen: list[str] = []
    before = signals.before_task_publish.connect(lambda **_: seen.append("before"), weak=False)
    after = signals.after_task_publish.connect(lambda **_: seen.append("after"), weak=False)
    try:
        with application.begin() as connection, app.transaction(connection):
            application.order("one")
            app.tasks["add"].delay(1)
        assert seen == ["before"]
        relayed(app, application)
        assert seen == ["before", "after"]
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)


def test_what_has_a_key_is_refused(app: Celery, application: Any) -> None:
    once = app.task(name="once", shared=False, unique=True)(lambda: None)
    with application.begin() as connection, app.transaction(connection):
        application.order("one")
        with pytest.raises(ValueError, match="its lock would be taken in the broker"):
            once.delay()
        with pytest.raises(ValueError, match="its key would be taken in the broker"):
            app.tasks["add"].apply_async((1,), idempotency_key="k")
    assert (application.waiting(), ready(app)) == (0, 0)


def test_the_missing_table_is_named(app: Celery, application: Any) -> None:
    def work() -> None:
        with application.begin() as connection, app.transaction(connection):
            application.order("one")
            app.tasks["add"].delay(1)

    application.run("DROP TABLE celeriac_outbox")
    with pytest.raises(ImproperlyConfigured, match="has no table celeriac_outbox: run `celeriac outbox migrate URL`"):
        work()
    assert application.orders() == []
    with pytest.raises(ImproperlyConfigured, match="has no table celeriac_outbox"):
        relayed(app, application)


def test_workers_relay(app: Celery, application: Any) -> None:
    app.conf.result_backend = app.conf.broker_url
    with start_worker(app):
        with application.begin() as connection, app.transaction(connection):
            application.order("one")
            single = app.tasks["add"].delay(1, 2)
            body = chord([app.tasks["add"].s(n) for n in range(10)])(app.tasks["total"].s())
        assert (single.get(timeout=60), body.get(timeout=60)) == (3, 45)
        wait_until(lambda: application.waiting() == 0, 60)

        def told() -> tuple[Any, ...]:
            answers = app.control.inspect(timeout=5.0, limit=1).stats() or {}
            return tuple(
                (outbox["relayed"], outbox["failed"], outbox["error"])
                for stats in answers.values()
                for outbox in stats["outboxes"]
            )

        wait_until(lambda: told() == ((12, 0, ""),), 60, told)
