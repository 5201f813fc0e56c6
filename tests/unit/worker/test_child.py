"""A child on a memory broker, from its first claim to its last word. Tasks wait for the test, never for the clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import Celery
from celeriac.brokers.memory import server
from celeriac.model.settle import StoredResult
from celeriac.payloads.directory import Directory
from celeriac.worker import child as child_module
from celeriac.worker import fetcher
from celeriac.worker.child import Child
from celeriac.worker.inprocess import in_process
from celeriac.worker.options import NodeOptions
from celeriac.worker.slot import Slots
from tests.unit.worker.fakes import delivery, done

#: More than any test needs; whoever waits so long has hung.
LONG = 30.0


class Node:
    """A child in a thread of its own."""

    def __init__(self, app: Celery, **options: Any) -> None:
        self.app = app
        self.ready, self.abandoned = threading.Event(), threading.Event()
        node = NodeOptions(**{"hostname": "w@h", "queues": ("celery",), "heartbeats": False, **options})
        self.child: Child = in_process(app, node, ready=self.ready.set, abandon=self.abandoned.set)
        self.thread = threading.Thread(target=self.child.serve, daemon=True)

    def start(self) -> Node:
        self.thread.start()
        assert self.ready.wait(LONG)
        return self

    def join(self) -> None:
        self.thread.join(LONG)
        assert not self.thread.is_alive()

    def stop(self, grace: float | None = None) -> None:
        self.child.stop(grace=grace)
        self.join()

    def depth(self) -> tuple[int, int]:
        """Ready and leased."""
        found = server(self.app.broker_url)
        with found.lock:
            depth = found.queues.depth("celery", found.clock.now())
        return depth.ready, depth.leased

    def until(self, ready: int, leased: int) -> None:
        """Wait until the broker shows this."""
        waiting = threading.Event()
        for _ in range(int(LONG / 0.002)):
            if self.depth() == (ready, leased):
                return
            waiting.wait(0.002)
        raise AssertionError(f"ready, leased: {self.depth()}")

    def record(self, task_id: str) -> dict[str, Any] | None:
        found = server(self.app.broker_url)
        with found.lock:
            raw = found.results.get(task_id, found.clock.monotonic())
        return None if raw is None else json.loads(raw)


class Gate:
    """A task's body that waits in the middle: ``entered`` tells, ``open`` lets it go on."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self) -> str:
        self.entered.release()
        assert self.open.wait(LONG)
        return "through"

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.entered.acquire(timeout=LONG)


@pytest.fixture
def gate(app: Celery) -> Iterator[Gate]:
    made = Gate()
    app.task(name="gate", shared=False)(made.__call__)
    app.task(name="early", acks_late=False, shared=False)(made.__call__)
    yield made
    made.open.set()


def eventually(holds: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(LONG / 0.002)):
        if holds():
            return
        waiting.wait(0.002)
    raise AssertionError("it never came")


def send(app: Celery, name: str, count: int = 1) -> list[str]:
    return [app.tasks[name].delay().id for _ in range(count)]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_from_the_queue_to_the_record(app: Celery, gate: Gate, pool: str) -> None:
    ids = send(app, "gate", 20)
    gate.open.set()
    node = Node(app, pool=pool, concurrency=2).start()
    node.until(ready=0, leased=0)
    node.stop()
    assert {(node.record(each) or {}).get("result") for each in ids} == {"through"}
    assert not node.abandoned.is_set()


def test_a_coroutine(app: Celery) -> None:
    @app.task(name="co")
    async def co() -> int:
        return 5

    (task_id,) = send(app, "co")
    node = Node(app).start()
    node.until(ready=0, leased=0)
    node.stop()
    assert (node.record(task_id) or {})["result"] == 5


def test_what_runs_is_finished_and_what_waits_goes_back_at_once(
    app: Celery, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "STALL", LONG)  # it goes back for the shutdown's sake alone
    ids = send(app, "gate", 6)
    node = Node(app)
    node.child.runner.runtimes["gate"] = 0.0001  # so that it claims ahead
    node.start()
    gate.wait()
    node.until(ready=0, leased=6)
    node.child.stop()
    node.until(ready=5, leased=1)  # while the one still runs
    assert node.thread.is_alive()
    gate.open.set()
    node.join()
    assert node.depth() == (5, 0)
    assert [bool(node.record(each)) for each in ids] == [True] + [False] * 5
    assert not node.abandoned.is_set()


def test_over_the_grace_it_goes_back_and_the_process_is_left(app: Celery, gate: Gate) -> None:
    (task_id,) = send(app, "gate")
    node = Node(app).start()
    gate.wait()
    node.child.stop(grace=0.02)
    assert node.abandoned.wait(LONG)
    assert node.depth() == (1, 0)
    gate.open.set()
    node.join()
    assert node.record(task_id) is None  # its outcome here came too late, another will run it
    assert node.depth() == (1, 0)


def test_a_second_stop_shortens_the_grace_but_none_lengthens_it(app: Celery, gate: Gate) -> None:
    send(app, "gate")
    node = Node(app).start()
    gate.wait()
    node.child.stop()
    node.child.stop(grace=0.0)
    node.child.stop(grace=100.0)
    assert node.abandoned.wait(LONG)
    gate.open.set()
    node.join()


def test_acknowledged_early_it_never_goes_back(app: Celery, gate: Gate) -> None:
    send(app, "early")
    node = Node(app).start()
    gate.wait()
    assert node.depth() == (0, 0)
    node.child.stop(grace=0.0)
    assert node.abandoned.wait(LONG)
    assert node.depth() == (0, 0)
    gate.open.set()
    node.join()


def test_the_hard_limit_of_one_acknowledged_early_is_recorded(app: Celery, gate: Gate) -> None:
    """When the supervisor has ended its process nobody has its message any more."""
    app.tasks["early"].time_limit = 0.05
    (task_id,) = send(app, "early")
    node = Node(app)
    slot = node.child.slot = node.child.runner._slot = Slots(1)[0]
    node.start()
    gate.wait()
    running = slot.running()
    assert running is not None
    assert running.deadline == pytest.approx(running.started + 0.05 + 1.0), "the supervisor leaves time for it"
    eventually(lambda: node.record(task_id) is not None)
    gate.open.set()
    node.stop()
    stored = node.record(task_id) or {}
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "TimeLimitExceeded")


def test_what_a_store_needs_is_not_of_a_coroutines_limit(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.conf.payload_store = str(tmp_path)

    @app.task(name="large", time_limit=60)
    async def large(text: str) -> str:
        return text

    real, busy, go_on = Directory.read, threading.Event(), threading.Event()

    def slow(*args: Any) -> bytes:
        busy.set()
        assert go_on.wait(LONG)
        return real(*args)

    monkeypatch.setattr(Directory, "read", slow)
    task_id = app.tasks["large"].delay("x" * 70_000).id
    node = Node(app).start()
    assert busy.wait(LONG)
    looked = threading.Event()

    def look() -> None:
        node.child._end_overdue(time.monotonic() + 3600)
        looked.set()

    assert node.child.loop is not None
    node.child.loop.call_soon_threadsafe(look)
    assert looked.wait(LONG)
    go_on.set()
    node.until(ready=0, leased=0)
    node.stop()
    assert (node.record(task_id) or {})["status"] == "SUCCESS"


def test_what_is_just_put_down_is_waited_for(app: Celery, gate: Gate) -> None:
    """Between the executor and the outbox a finished task is in neither."""
    (task_id,) = send(app, "gate")
    node = Node(app)
    done, putting_down, go_on = node.child.sync._done, threading.Event(), threading.Event()

    def slowly(batch: Any) -> None:
        putting_down.set()
        assert go_on.wait(LONG)
        done(batch)

    node.child.sync._done = slowly
    gate.open.set()
    node.start()
    assert putting_down.wait(LONG)
    node.child.stop()
    assert not node.child.stopped.wait(0.05)
    go_on.set()
    node.join()
    assert node.depth() == (0, 0)
    assert (node.record(task_id) or {})["result"] == "through"


def test_a_stop_before_the_start_is_not_forgotten(app: Celery) -> None:
    node = Node(app)
    node.child.stop()
    node.thread.start()
    node.join()


def test_stop_is_idempotent_also_afterwards(app: Celery) -> None:
    node = Node(app).start()
    node.child.stop()
    node.stop()
    node.child.stop(grace=0.0)


def test_an_adapter_that_cannot_be_made_is_the_servers_error(app: Celery, node: NodeOptions) -> None:
    def broken() -> Any:
        raise ZeroDivisionError

    child = Child(app, node, open_broker=broken, open_store=lambda: None, abandon=lambda: None)
    with pytest.raises(ZeroDivisionError):
        child.serve()


def test_it_leaves_after_its_last_task(app: Celery, gate: Gate) -> None:
    send(app, "gate", 5)
    gate.open.set()
    node = Node(app, max_tasks_per_child=3)
    node.child.runner.runtimes["gate"] = 0.0001
    node.start()
    node.join()
    assert (node.child.runner.count, node.depth()) == (3, (2, 0))
    assert node.child.exit_reason == "it ran 3 tasks"


def test_it_leaves_when_it_has_grown(app: Celery, gate: Gate) -> None:
    send(app, "gate")
    gate.open.set()
    node = Node(app, max_memory_per_child=1).start()
    node.join()
    assert node.child.exit_reason.startswith("it uses ")


# -- parts ---------------------------------------------------------------------------------------------------------


class FakeLoop:
    def __init__(self) -> None:
        self.called: list[str] = []

    def call_soon_threadsafe(self, callback: Any) -> None:
        self.called.append(callback.__name__)

    def is_closed(self) -> bool:
        return False


def test_a_loop_that_fails_under_a_task_says_why_and_is_abandoned(
    app: Celery, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(app)

    def broken(now: float) -> None:
        raise OSError("no more\nfiles")

    def serve() -> None:
        with contextlib.suppress(BaseExceptionGroup):
            node.child.serve()

    node.thread = threading.Thread(target=serve, daemon=True)
    node.start()
    node.child.fetcher.relieve = broken  # type: ignore[method-assign]
    send(app, "gate")
    assert node.abandoned.wait(LONG)
    assert node.child.failed
    assert "The I/O loop of this child failed, it is replaced: OSError: no more files" in caplog.messages
    gate.open.set()
    node.join()


@pytest.fixture
def idle(app: Celery, node: NodeOptions) -> Child:
    child = Child(app, node, open_broker=lambda: None, open_store=lambda: None)  # type: ignore[arg-type,return-value]
    child.loop = FakeLoop()  # type: ignore[assignment]
    return child


def called(child: Child) -> list[str]:
    """What the loop of an idle child was asked to call."""
    loop: Any = child.loop
    names: list[str] = loop.called
    return names


def test_the_loop_is_woken_once_a_batch(idle: Child) -> None:
    one, two, three = delivery(), delivery(), delivery()
    idle._done([one])
    idle._done([two, three])
    assert called(idle) == ["_drain_soon"]
    assert idle._outbox == [one, two, three]


@pytest.mark.parametrize(("backlog", "held", "waits"), [(True, 100, True), (True, 10, False), (False, 100, False)])
def test_outcomes_gather_where_many_run_and_more_wait(idle: Child, backlog: bool, held: int, waits: bool) -> None:
    later: list[Any] = []
    idle.loop = SimpleNamespace(call_later=lambda seconds, callback: later.append(callback))  # type: ignore[assignment]
    idle.fetcher = SimpleNamespace(backlog=backlog, held=range(held), changed=lambda: None)  # type: ignore[assignment]
    idle.services = SimpleNamespace(take=lambda batch: None)  # type: ignore[assignment]
    idle._outbox = [done(delivery())]
    idle._drain_soon()
    assert (len(later), len(idle._outbox)) == ((1, 1) if waits else (0, 0))
    for callback in later:
        callback()
    assert idle._outbox == []


def test_started_records_come_in_order_with_results(idle: Child) -> None:
    started, result = StoredResult("x", b"", False), done(delivery(id="x"))
    idle._record_started(started)
    idle._done([result])
    assert idle._outbox == [started, result]


def test_events_of_two_threads_at_once_are_sent(idle: Child) -> None:
    class Hurried(list[Any]):
        """Whenever one thread appends, so does another before the first goes on."""

        def append(self, event: Any) -> None:
            super().append(event)
            super().append({"of": "another thread"})

    idle._events = Hurried()
    idle._emit("task-started", {})
    assert called(idle) == ["_flush_events_soon"]
    idle._emit("task-started", {})
    assert called(idle) == ["_flush_events_soon"]
    idle.loop = None
    idle._flush_events()
    idle.loop = FakeLoop()  # type: ignore[assignment]
    idle._emit("task-started", {})
    assert called(idle) == ["_flush_events_soon"]


class Unmet(Node):
    """A child whose agent has not greeted it yet."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self.greeted = self.child._greeted = asyncio.Event()

    def greet(self) -> None:
        self.child._call_loop(self.greeted.set)


def test_nothing_is_claimed_before_the_agents_orders_are_obeyed(
    app: Celery, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "_GREETING", 60.0)
    gate.open.set()
    node = Unmet(app)
    begun = threading.Event()

    async def last(child: Child) -> None:
        begun.set()

    node.child._extras = [*node.child._extras, last]
    send(app, "gate")
    node.thread.start()
    assert begun.wait(LONG)
    assert (node.ready.is_set(), node.depth()) == (False, (1, 0))
    node.greet()
    node.until(ready=0, leased=0)
    node.stop()


def test_an_agent_that_is_away_keeps_nobody_from_working(
    app: Celery, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "_GREETING", 0.01)
    gate.open.set()
    send(app, "gate")
    node = Unmet(app).start()
    node.until(ready=0, leased=0)
    node.stop()


def test_stopping_does_not_wait_for_the_agent(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_GREETING", 60.0)
    node = Unmet(app)
    node.thread.start()
    node.stop()
