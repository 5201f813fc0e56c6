"""Keys, locks and steps with workers in this process: from the call over the broker to the end of the task."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chain, chord, group
from celeriac.app.dead import DeadLetterRefused
from celeriac.contrib.testing.worker import TestWorkController, start_worker
from celeriac.exceptions import EncodeError, Ignore, Reject, TaskNotUnique, TaskRevokedError
from celeriac.model.ledger import LOCK
from celeriac.result import AsyncResult
from tests.servers import wait_until
from tests.views import QueueOnly  # noqa: F401 - the URLs queues+...

_numbers = itertools.count()


@pytest.fixture(
    params=[
        "memory", "sqlite", "redis", "queues+redis",
        pytest.param("redis+sqlite", marks=pytest.mark.extended),
        pytest.param("queues+memory", marks=pytest.mark.extended),
    ]
)  # fmt: skip
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    """An app on each kind of server, one whose results are elsewhere, and those whose ledger is beside the queues."""
    kind: str = request.param
    broker, backend = f"memory://keys-{next(_numbers)}", None
    if kind == "sqlite":
        broker = f"sqlite:///{tmp_path / 'celeriac.db'}"
    elif kind == "queues+memory":
        broker, backend = f"queues+{broker}", f"{broker}-results"
    elif kind == "queues+redis":
        request.getfixturevalue("redis_url")
        server = request.getfixturevalue("redis_server")
        broker, backend = f"queues+{server.url()}", server.url(db=1)
    elif kind.startswith("redis"):
        request.getfixturevalue("redis_url")
        broker = request.getfixturevalue("redis_server").url()
        backend = f"sqlite:///{tmp_path / 'results.db'}" if kind.endswith("sqlite") else broker
    with Celery("keys", broker=broker, backend=backend or broker, worker_unknown_task_park=0.5) as app:
        yield app


class Gate:
    """Holds tasks until it opens; knows who came."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.came: list[Any] = []

    def __call__(self, value: Any) -> Any:
        self.came.append(value)
        assert self.open.wait(120.0)
        return value

    def await_first(self) -> None:
        wait_until(lambda: bool(self.came), 60)


def declared(app: Celery, fun: Callable[..., Any], **options: Any) -> Any:
    """A task of this app alone."""

    def body(*args: Any) -> Any:
        return fun(*args)

    return app.task(shared=False, **options)(body)


def working(app: Celery, concurrency: int = 1) -> AbstractContextManager[TestWorkController]:
    """A worker; without a first task, which a gate would hold up."""
    pool = "solo" if concurrency == 1 else "threads"
    return start_worker(app, concurrency=concurrency, pool=pool, perform_ping_check=False)


def held(app: Celery, lock: str) -> bool:
    ledger = app.task_steps._ledger.get()
    return ledger.read([lock], timeout=30.0)[0] is not None


def freed(app: Celery, lock: str) -> None:
    wait_until(lambda: not held(app, lock), 60)


def test_many_calls_with_one_key_run_once(app: Celery) -> None:
    ran: list[int] = []
    task = declared(app, ran.append, name="keyed")
    with working(app):
        results: list[AsyncResult[Any]] = []

        def send(number: int) -> None:
            results.extend(task.apply_async((number,), idempotency_key="order-17") for _ in range(20))

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(send, range(6)))
        results[0].get(timeout=60)
        assert task.apply_async((99,), idempotency_key="order-17").id == results[0].id, "also when it is over"
        task.apply_async((7,), idempotency_key="order-18").get(timeout=60)
    assert len({result.id for result in results}) == 1
    assert len(ran) == 2


def test_a_key_used_by_a_task(app: Celery) -> None:
    inner = declared(app, lambda: 1, name="inner")

    @app.task(shared=False, name="outer")
    def outer() -> list[str]:
        return [inner.apply_async(idempotency_key="k").id for _ in range(3)]

    with working(app):
        first, second = outer.delay(), outer.delay()
        ids = {*first.get(timeout=60), *second.get(timeout=60)}
        assert len(ids) == 1
        children = [child.id for result in (first, second) for child in result.children or ()]
        assert children == [*ids], "who has sent it has it for a child"


# -- unique


def test_equal_while_it_waits_and_runs(app: Celery) -> None:
    gate = Gate()
    task = declared(app, gate, name="u", unique="args")
    first = task.delay(1)
    assert task.delay(1).id == first.id
    with working(app, 2):
        gate.await_first()
        assert task.delay(1).id == first.id
        gate.open.set()
        first.get(timeout=60)
        # Where results are elsewhere they are stored first; until it is freed, the record says that it is over.
        assert task.delay(1).id != first.id
        assert task.delay(1).get(timeout=60) == 1
        freed(app, _key(app, "u", 1))


def _key(app: Celery, name: str, *args: Any) -> str:
    return str(app.tasks[name].unique_rule.key(args, {}))


def _raising(exc: BaseException) -> Callable[[], Any]:
    def end() -> Any:
        raise exc

    return end


@pytest.mark.parametrize("end", ["success", "failure", "ignore", "reject", "expired", "revoked", "unknown", "ignored"])
def test_every_end_frees(app: Celery, end: str) -> None:
    ways = {"failure": _raising(ValueError("no")), "ignore": _raising(Ignore()), "reject": _raising(Reject("no"))}
    task = declared(app, ways.get(end, lambda: 1), name="ends", unique=True, ignore_result=end == "ignored")
    options = {"expired": {"expires": 0.001}}.get(end, {})
    result = task.apply_async(**options)
    if end == "unknown":
        del app.tasks["ends"]
    time.sleep(0.002)
    with working(app) as worker:
        if end == "revoked":
            worker.revoke(result.id) if hasattr(worker, "revoke") else app.control.revoke(result.id)
        freed(app, "lock:ends:")


def test_a_retry_keeps_the_lock(app: Celery) -> None:
    second, go = threading.Event(), threading.Event()

    @app.task(shared=False, name="again", bind=True, unique=True, max_retries=3)
    def again(self: Any) -> int:
        assert LOCK in self.request.headers
        if self.request.retries == 0:
            raise self.retry(countdown=0.3)
        if self.request.retries == 1:
            raise self.retry(countdown=0.0, headers={"mine": 1})
        second.set()
        assert go.wait(120.0)
        return int(self.request.retries)

    with working(app):
        first = again.delay()
        while not second.is_set():
            assert again.delay().id == first.id, "while it runs, waits to be tried again, and runs again"
            time.sleep(0.02)
        assert again.delay().id == first.id
        go.set()
        assert first.get(timeout=60) == 2
        freed(app, "lock:again:")


def test_a_retry_renews_the_lock(app: Celery) -> None:
    @app.task(shared=False, name="later", bind=True, unique=True, unique_for=1, max_retries=3)
    def later(self: Any) -> int:
        if self.request.retries == 0:
            raise self.retry(countdown=2.5)
        return 1

    def tried() -> AsyncResult[Any]:
        result = later.delay()
        wait_until(lambda: result.state in {"RETRY", "SUCCESS"})
        return result

    with working(app):
        first = tried()
        while (again := tried()).id != first.id:  # the machine stalled, and the lock ended before the first try
            first = again
        began = time.monotonic()
        while time.monotonic() - began < 2.0:
            assert later.delay().id == first.id, "longer than unique_for says"
            time.sleep(0.1)
        assert first.get(timeout=60) == 1


def test_a_retry_that_is_not_raised_keeps_the_lock(app: Celery) -> None:
    second, go = threading.Event(), threading.Event()

    @app.task(shared=False, name="goes_on", bind=True, unique=True)
    def goes_on(self: Any) -> str:
        if self.request.retries == 0:
            self.retry(countdown=0, throw=False)
            return "first"
        second.set()
        assert go.wait(120.0)
        return "second"

    with working(app):
        first = goes_on.delay()
        assert second.wait(60)
        assert held(app, "lock:goes_on:")
        go.set()
        freed(app, "lock:goes_on:")
        assert first.get(timeout=60) in {"first", "second"}


def test_until_it_starts(app: Celery) -> None:
    gate = Gate()
    task = declared(app, gate, name="starts", unique=True, unique_until="start")
    first = task.delay(1)
    assert task.delay(2).id == first.id
    with working(app):
        gate.await_first()
        second = task.delay(3)
        assert second.id != first.id
        assert task.delay(4).id == second.id, "one runs, one waits"
        gate.open.set()
        assert (first.get(timeout=60), second.get(timeout=60)) == (1, 3)
        freed(app, "lock:starts:")
    assert gate.came == [1, 3]


def test_a_replaced_one_does_not_run(app: Celery) -> None:
    ran: list[int] = []
    task = declared(app, ran.append, name="replaced", unique=True, on_conflict="replace")
    later = task.apply_async((1,), countdown=0.2)
    second, third = task.delay(2), task.delay(3)
    with working(app):
        third.get(timeout=60)
        for result in (later, second):
            with pytest.raises(TaskRevokedError, match="replaced by"):
                result.get(timeout=60)
        time.sleep(0.3)
        assert ran == [3]
        freed(app, "lock:replaced:")


def test_a_running_one_is_not_replaced(app: Celery) -> None:
    gate = Gate()
    task = declared(app, gate, name="running", unique=True, on_conflict="replace")
    with working(app, 2):
        first = task.delay(1)
        gate.await_first()
        assert task.delay(2).id == first.id
        gate.open.set()
        assert first.get(timeout=60) == 1


def test_coroutines_are_unique_too(app: Celery) -> None:
    started, go = threading.Event(), threading.Event()

    @app.task(shared=False, name="co", unique=True, on_conflict="raise")
    async def co() -> int:
        started.set()
        assert await asyncio.to_thread(go.wait, 60.0)
        return 1

    with working(app):
        first = co.delay()
        assert started.wait(60)
        with pytest.raises(TaskNotUnique):
            co.delay()
        go.set()
        assert first.get(timeout=60) == 1
        freed(app, "lock:co:")


def test_acknowledged_early(app: Celery) -> None:
    gate = Gate()
    task = declared(app, gate, name="early", unique=True, acks_late=False)
    with working(app, 2):
        first = task.delay(1)
        gate.await_first()
        assert task.delay(2).id == first.id
        gate.open.set()
        first.get(timeout=60)
        freed(app, "lock:early:")


def test_a_replacement_goes_on_with_the_lock(app: Celery) -> None:
    gate = Gate()
    declared(app, gate, name="inner")

    @app.task(shared=False, name="outer", bind=True, unique=True)
    def outer(self: Any, way: str) -> Any:
        inner = self.app.tasks["inner"]
        raise self.replace({"one": inner.s(1), "chain": chain(inner.s(1), inner.si(2))}[way])

    with working(app):
        for way in ("one", "chain"):
            gate.open.clear()
            gate.came.clear()
            first = outer.delay(way)
            gate.await_first()
            assert outer.delay(way).id == first.id
            gate.open.set()
            first.get(timeout=60)
            freed(app, "lock:outer:")


def test_a_dead_letter_is_not_sent_again_beside_an_equal_one(app: Celery) -> None:
    gate, fails = Gate(), [True]

    @app.task(shared=False, name="mended", unique=True)
    def mended(value: str) -> str:
        if fails[0]:
            raise ValueError("no")
        return str(gate(value))

    with working(app, 2):
        dead = mended.delay("dead")
        with pytest.raises(ValueError, match="no"):
            dead.get(timeout=60)
        wait_until(lambda: app.dead_letters.count() == 1, 60)
        freed(app, "lock:mended:")
        fails.clear()
        fails.append(False)
        equal = mended.delay("equal")
        gate.await_first()
        with pytest.raises(DeadLetterRefused, match=f"an equal one, {equal.id}, waits or runs"):
            app.dead_letters.retry(dead.id)
        assert (app.AsyncResult(dead.id).state, app.dead_letters.count()) == ("FAILURE", 1)
        gate.open.set()
        assert equal.get(timeout=60) == "equal"
        freed(app, "lock:mended:")
        gate.open.clear()
        again = app.dead_letters.retry(dead.id)
        assert mended.delay("another").id == dead.id, "it holds the lock again"
        gate.open.set()
        assert again.get(timeout=60) == "dead"
        freed(app, "lock:mended:")
    assert gate.came == ["equal", "dead"]


def test_parts_of_workflows_compete_with_nobody(app: Celery) -> None:
    task = declared(app, lambda n: n, name="part", unique=True)
    total = declared(app, sum, name="total")
    with working(app):
        assert group([task.s(n) for n in range(5)]).apply_async().get(timeout=60) == [0, 1, 2, 3, 4]
        assert chain(task.s(1), task.s(), task.s()).apply_async().get(timeout=60) == 1
        assert chord([task.s(n) for n in range(5)], total.s()).apply_async().get(timeout=60) == 10


def test_a_purge_frees(app: Celery) -> None:
    task = declared(app, lambda n: n, name="purged", unique="args")
    first = [task.delay(n) for n in range(5)]
    assert app.control.purge() == 5
    second = [task.delay(n) for n in range(5)]
    assert not {result.id for result in first} & {result.id for result in second}


# -- once


def test_a_step_runs_once_over_retries(app: Celery) -> None:
    calls: list[str] = []

    def step(name: str, value: Any = None) -> Any:
        calls.append(name)
        return {"name": name, "value": value}

    @app.task(shared=False, name="steps", bind=True, max_retries=5)
    def steps(self: Any) -> list[Any]:
        found = [self.once("charge", step, "charge", value=(1, 2))]
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        found.append(self.once("mail", step, "mail"))
        if self.request.retries == 1:
            raise self.retry(countdown=0)
        found.append(self.once("none", calls.append, "none"))
        if self.request.retries == 2:
            raise self.retry(countdown=0)
        assert self.once("none", calls.append, "none") is None
        return [*found, self.step_key("charge")]

    with working(app):
        result = steps.delay()
        first = [{"name": "charge", "value": [1, 2]}, {"name": "mail", "value": None}, None, f"{result.id}:charge"]
        assert result.get(timeout=60) == first
        assert calls == ["charge", "mail", "none"]
        assert steps.delay().get(timeout=60)[:3] == first[:3], "another task has steps of its own"
        assert len(calls) == 6


def test_a_step_that_fails_runs_again(app: Celery) -> None:
    calls: list[int] = []

    def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("away")
        return len(calls)

    @app.task(
        shared=False, name="flaky", bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=5
    )
    def task(self: Any) -> Any:
        return self.once("flaky", flaky)

    with working(app):
        assert task.delay().get(timeout=60) == 3


def test_coroutine_steps(app: Celery) -> None:
    calls: list[int] = []

    async def double(x: int) -> int:
        await asyncio.sleep(0)
        calls.append(x)
        return 2 * x

    @app.task(shared=False, name="co_steps", bind=True)
    async def task(self: Any) -> Any:
        both = await asyncio.gather(self.once("a", double, 1), self.once("b", double, x=2))
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return both

    with working(app):
        assert task.delay().get(timeout=60) == [2, 4]
    assert sorted(calls) == [1, 2]


def test_what_a_step_cannot_be(app: Celery) -> None:
    async def co() -> None: ...

    @app.task(shared=False, name="bad", bind=True)
    def bad(self: Any, how: str) -> Any:
        return {
            "name": lambda: self.once("", int),
            "value": lambda: self.once("s", object),
            "kind": lambda: self.once("s", co),
        }[how]()

    @app.task(shared=False, name="bad_async", bind=True)
    async def bad_async(self: Any) -> Any:
        return await self.once("s", int)

    with working(app):
        for task, args, error, words in (
            (bad, ("name",), ValueError, "must not be empty"),
            (bad, ("value",), EncodeError, "step 's' returned cannot be recorded: .*object"),
            (bad, ("kind",), TypeError, "takes a plain function here"),
            (bad_async, (), TypeError, "takes a coroutine function here"),
        ):
            with pytest.raises(error, match=words):
                task.apply_async(args).get(timeout=60)


def test_two_runs_at_a_time_agree(app: Celery) -> None:
    """A frozen worker's task goes on beside the one that was started in its place."""
    request = type("R", (), {"called_directly": False, "id": "same", "is_eager": False})()
    together = threading.Barrier(4)

    def run(number: int) -> Any:
        def step() -> int:
            together.wait(60)
            return number

        return app.task_steps.run(request, "s", step, (), {})

    with ThreadPoolExecutor(4) as threads:
        assert len({*threads.map(run, range(4))}) == 1
