"""Workers in the process of a test: the whole path from `delay()` over the memory broker to the result."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celeriac import chain, signals
from celeriac.app.base import Celery
from celeriac.contrib.testing import worker as testing
from celeriac.contrib.testing.app import TestApp, setup_default_app
from celeriac.contrib.testing.worker import TestWorkController, start_worker
from celeriac.exceptions import ImproperlyConfigured, NotRegistered, Reject, WorkerShutdown
from celeriac.result import AsyncResult


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app with tasks of every kind, on a memory broker of its own."""
    app = TestApp()
    with setup_default_app(app):
        declare(app)
        yield app


def declare(app: Celery) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="add_later")
    async def add_later(x: int, y: int) -> int:
        await asyncio.sleep(0.01)
        return x + y

    @app.task(name="retried", bind=True, max_retries=3)
    def retried(self: object, until: int) -> int:
        if self.request.retries < until:  # type: ignore[attr-defined]
            raise self.retry(countdown=0.01)  # type: ignore[attr-defined]
        return self.request.retries  # type: ignore[attr-defined,no-any-return]

    @app.task(name="fail")
    def fail(kind: str) -> None:
        raise {"value": ValueError("no"), "reject": Reject("no")}[kind]

    @app.task(name="automatic", autoretry_for=(OSError,), max_retries=2, retry_backoff=0.01)
    def automatic() -> None:
        raise ConnectionResetError("gone")


@pytest.fixture
def threads() -> Callable[[], list[threading.Thread]]:
    """The threads that a test has started and that still run."""
    before = set(threading.enumerate())
    return lambda: [thread for thread in threading.enumerate() if thread not in before]


def delayed(app: Celery, name: str, *args: object) -> AsyncResult[object]:
    return app.tasks[name].delay(*args)  # type: ignore[no-any-return]


def test_it_starts_fast(app: Celery) -> None:
    def start() -> float:
        began = time.perf_counter()
        with start_worker(app):
            return time.perf_counter() - began

    start()  # imports are done
    assert min(start() for _ in range(10)) < 0.05


def test_results_of_plain_and_async_tasks(app: Celery) -> None:
    with start_worker(app):
        results = [delayed(app, name, n, n) for n in range(50) for name in ("add", "add_later")]
        assert [result.get(timeout=60) for result in results] == [2 * n for n in range(50) for _ in range(2)]
        assert results[0].state == "SUCCESS"


def test_retries_and_errors(app: Celery) -> None:
    with start_worker(app):
        assert delayed(app, "retried", 2).get(timeout=60) == 2
        with pytest.raises(ValueError, match="no"):
            delayed(app, "fail", "value").get(timeout=60)
        with pytest.raises(ConnectionResetError):
            delayed(app, "automatic").get(timeout=60)
        with pytest.raises(Reject, match="no"):
            delayed(app, "fail", "reject").get(timeout=60)


def test_chain_countdown_link_and_priority(app: Celery) -> None:
    add, later = app.tasks["add"], app.tasks["add_later"]
    with start_worker(app):
        assert chain(add.s(1, 2), later.s(3), add.s(4)).delay().get(timeout=60) == 10
        began = time.monotonic()
        timed = add.apply_async((1, 1), countdown=0.3, link=add.s(40), priority=5)
        assert timed.get(timeout=60) == 2
        assert time.monotonic() - began >= 0.3
        assert timed.children[0].get(timeout=60) == 42


def test_unknown_task(app: Celery) -> None:
    app.conf.worker_unknown_task_park = 0
    with start_worker(app), pytest.raises(NotRegistered):
        app.send_task("no.such.task").get(timeout=60)


def test_task_declared_while_it_runs(app: Celery) -> None:
    with start_worker(app) as worker:

        @app.task(name="late")
        def late() -> str:
            return "here"

        worker.reload()
        assert late.delay().get(timeout=60) == "here"
        assert worker.stats()["total"]["late"] == 1


def test_several_workers_with_queues_of_their_own(app: Celery) -> None:
    seen: dict[str, str] = {}

    @app.task(name="who", bind=True)
    def who(self: object, key: str) -> None:
        seen[key] = self.request.hostname  # type: ignore[attr-defined]

    with (
        start_worker(app, queues="a, b") as one,
        start_worker(app, queues=["c"], hostname="c@here", pool="threads", concurrency=2) as other,
    ):
        for key in "abc":
            who.apply_async((key,), queue=key).get(timeout=60)
    assert (one.queues, other.queues, other.hostname) == (("a", "b"), ("c",), "c@here")
    assert seen == {"a": one.hostname, "b": one.hostname, "c": "c@here"}


def test_threads_run_at_the_same_time(app: Celery) -> None:
    together = threading.Barrier(3)

    @app.task(name="meet")
    def meet() -> bool:
        together.wait(60)
        return True

    with start_worker(app, pool="prefork", concurrency=3):
        assert all(result.get(timeout=60) for result in [meet.delay() for _ in range(3)])


def test_no_thread_is_left(app: Celery, threads: Callable[[], list[threading.Thread]]) -> None:
    for pool in ("solo", "threads"):
        with start_worker(app, pool=pool, concurrency=2):
            delayed(app, "add", 1, 1).get(timeout=60)
            delayed(app, "add_later", 1, 1).get(timeout=60)
        assert threads() == []


def test_running_tasks_end_before_it_stops(app: Celery, threads: Callable[[], list[threading.Thread]]) -> None:
    running = threading.Barrier(2)

    @app.task(name="slow")
    def slow() -> str:
        running.wait(60)
        time.sleep(0.2)
        return "done"

    @app.task(name="slow_async")
    async def slow_async() -> str:
        running.wait(60)
        await asyncio.sleep(0.2)
        return "done"

    for task in (slow, slow_async):
        with start_worker(app):
            result = task.delay()
            running.wait(60)
        assert result.get(timeout=60) == "done"
    assert threads() == []


def run_endless(app: Celery, end: threading.Event, error: type[Exception] | None = None) -> None:
    """Leave a worker's block while a task runs that ends with ``end``."""
    running = threading.Event()

    @app.task(name="endless")
    def endless() -> None:
        running.set()
        end.wait(60)

    with start_worker(app, shutdown_timeout=0.1):
        endless.delay()
        running.wait(60)
        if error is not None:
            raise error


def test_a_task_that_does_not_end_is_named(app: Celery, threads: Callable[[], list[threading.Thread]]) -> None:
    end = threading.Event()
    with pytest.raises(RuntimeError, match=r"did not stop within 0.1 s: task endless\[.*\] runs for .* s"):
        run_endless(app, end)
    end.set()
    for thread in threads():
        thread.join(10)
    assert threads() == []


def test_the_error_of_a_test_is_not_hidden(app: Celery) -> None:
    end = threading.Event()
    with pytest.raises(AssertionError) as caught:
        run_endless(app, end, AssertionError)
    end.set()
    assert "endless" in caught.value.__notes__[0]


def test_a_coroutine_that_does_not_end_is_cancelled(app: Celery, threads: Callable[[], list[threading.Thread]]) -> None:
    running = threading.Event()

    @app.task(name="endless")
    async def endless() -> None:
        running.set()
        await asyncio.sleep(3600)

    with start_worker(app, shutdown_timeout=0.1):
        endless.delay()
        running.wait(60)
    assert threads() == []


def test_what_keeps_it_from_starting_is_raised(app: Celery, threads: Callable[[], list[threading.Thread]]) -> None:
    app.conf.include = ["there_is_no_such_module"]
    with pytest.raises(RuntimeError, match="there_is_no_such_module"), start_worker(app):
        raise AssertionError("it has started")
    assert threads() == []


def test_a_limit_that_makes_no_sense_is_told_at_the_start(app: Celery) -> None:
    app.task(name="limited", rate_limit="10/d")(lambda: None)
    expected = "task 'limited': rate limit '10/d' is not understood"
    with pytest.raises(RuntimeError, match=expected), start_worker(app):
        raise AssertionError("it has started")


def test_limits_of_threads_and_coroutines(app: Celery) -> None:
    running: list[int] = []
    most = 0

    def begin() -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))

    @app.task(name="two", max_concurrency=2)
    def two() -> None:
        begin()
        time.sleep(0.02)
        running.pop()

    @app.task(name="two_async", max_concurrency=2)
    async def two_async() -> None:
        begin()
        await asyncio.sleep(0.02)
        running.pop()

    with start_worker(app, pool="threads", concurrency=6):
        for task in (two, two_async):
            most = 0
            for result in [task.delay() for _ in range(20)]:
                result.get(timeout=60)
            assert most == 2


def test_bad_arguments(app: Celery) -> None:
    with pytest.raises(TypeError, match="'conc'"), start_worker(app, conc=3):
        pass
    with pytest.raises(ImproperlyConfigured, match="gevent"), start_worker(app, pool="gevent"):
        pass


def test_without_results_it_is_not_pinged(app: Celery) -> None:
    seen = threading.Event()
    app.conf.update(result_backend="disabled://")

    @app.task(name="see")
    def see() -> None:
        seen.set()

    with start_worker(app):
        see.delay()
        assert seen.wait(60)


def test_a_task_may_end_the_worker(app: Celery, threads: Callable[[], list[threading.Thread]]) -> None:
    @app.task(name="leave")
    def leave() -> None:
        raise WorkerShutdown

    with start_worker(app) as worker:
        leave.delay()
        worker.join()
    assert threads() == []


def test_signals(app: Celery) -> None:
    seen: list[str] = []

    def note(signal: signals.Signal, **kwargs: object) -> None:
        seen.append(signal.name or "")

    watched = [
        testing.test_worker_starting,
        testing.test_worker_started,
        testing.test_worker_stopped,
        signals.worker_init,
        signals.worker_process_init,
        signals.worker_shutdown,
    ]
    for signal in watched:
        signal.connect(note, weak=False)
    try:
        with start_worker(app) as worker:
            assert isinstance(worker, TestWorkController)
            worker.ensure_started()
    finally:
        for signal in watched:
            signal.disconnect(note)
    assert seen == [
        "test_worker_starting", "worker_init", "worker_process_init", "test_worker_started", "worker_shutdown",
        "test_worker_stopped",
    ]  # fmt: skip


def test_log_level_and_file(app: Celery, tmp_path: Path) -> None:
    log = logging.getLogger("celery")
    before, handlers = log.level, list(log.handlers)
    with start_worker(app, loglevel="info", logfile=str(tmp_path / "log")):
        result = delayed(app, "add", 1, 1)
        result.get(timeout=60)
    assert f"Task add[{result.id}] succeeded" in (tmp_path / "log").read_text()
    assert (log.level, log.handlers) == (before, handlers)


def test_it_runs_on_sqlite_too(sqlite_url: str) -> None:
    app = TestApp(broker=sqlite_url, backend=sqlite_url)
    with setup_default_app(app):
        declare(app)
        with start_worker(app):
            results = app.tasks["add"].delay_many((n, n) for n in range(20))
            assert [result.get(timeout=60) for result in results] == [2 * n for n in range(20)]


def test_it_runs_on_redis_too(redis_url: str) -> None:
    app = TestApp(broker=redis_url, backend=redis_url)
    with setup_default_app(app):
        declare(app)
        with start_worker(app):
            results = app.tasks["add"].delay_many((n, n) for n in range(20))
            assert [result.get(timeout=60) for result in results] == [2 * n for n in range(20)]
