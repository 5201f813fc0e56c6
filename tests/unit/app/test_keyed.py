"""Sending under keys, on a memory broker that no worker reads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celery, chain, chord, group, signals
from celeriac.brokers import memory
from celeriac.brokers.memory.shared import Server
from celeriac.client.payloads import payloads_of
from celeriac.exceptions import ImproperlyConfigured, OperationalError, TaskNotUnique, TaskRevokedError
from celeriac.model.ledger import LOCK, Lock, lock_of
from celeriac.model.message import Message
from celeriac.testing.clock import VirtualClock
from tests.unit.app.conftest import Collector

_numbers = itertools.count()


class Bench:
    """An app, and what its broker holds."""

    def __init__(self) -> None:
        self.url = f"memory://keyed-{next(_numbers)}"
        self.clock = VirtualClock()
        self.server: Server = memory.server(self.url, self.clock)
        self.app = Celery("proj", broker=self.url, backend=self.url, set_as_current=True)

    def task(self, name: str = "t", **options: Any) -> Any:
        return self.app.task(name=name, shared=False, **options)(lambda a=1, b=2, *, c=3: None)

    def waiting(self) -> int:
        with self.server.lock:
            return self.server.queues.depth("celery", 0.0).ready

    def taken(self) -> list[Message]:
        from celeriac.codec.envelope import delivery

        with self.server.lock:
            taken = self.server.queues.take(["celery"], 100, owner="w", now=self.clock.now() + 1e6, until=1e9)
        return [delivery(raw, token=token, queue=queue).message for token, queue, raw in taken]  # type: ignore[misc]

    def pass_time(self, seconds: float) -> None:
        asyncio.run(self.clock.advance(seconds))

    def ends(self, task_id: str, state: str = "SUCCESS") -> None:
        """By a worker that knows nothing of locks."""
        self.app.backend.store_result(task_id, None, state)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.app:
        yield bench
    memory.drop(bench.url)


# -- idempotency_key


def test_a_second_call_returns_the_first(bench: Bench) -> None:
    task = bench.task()
    first = task.apply_async((1,), idempotency_key="order-17")
    assert task.apply_async((1,), idempotency_key="order-17").id == first.id
    assert bench.app.send_task("t", (9,), idempotency_key="order-17").id == first.id
    assert task.s(1).set(idempotency_key="order-17").delay().id == first.id
    assert bench.waiting() == 1


def test_keys_belong_to_a_task_name(bench: Bench) -> None:
    results = [bench.app.send_task(name, idempotency_key=key) for name in ("a", "b") for key in ("1", "2")]
    assert len({result.id for result in results}) == 4 == bench.waiting()


@pytest.mark.parametrize(("ttl", "life"), [(None, 86400.0), (5, 5.0), (timedelta(minutes=1), 60.0)])
def test_a_key_has_its_time(bench: Bench, ttl: Any, life: float) -> None:
    task = bench.task()
    options = {} if ttl is None else {"idempotency_ttl": ttl}
    first = task.apply_async(idempotency_key="k", **options)
    bench.pass_time(life - 0.1)
    assert task.apply_async(idempotency_key="k").id == first.id
    bench.pass_time(0.2)
    assert task.apply_async(idempotency_key="k").id != first.id


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"idempotency_key": 17}, TypeError, "must be a text, not int"),
        ({"idempotency_key": ""}, ValueError, "must not be empty"),
        ({"idempotency_key": "\ud800"}, ValueError, "not valid Unicode"),
        ({"idempotency_key": "k", "idempotency_ttl": 0}, ValueError, "above 0"),
        ({"idempotency_ttl": 5}, ValueError, "without idempotency_key"),
    ],
)
def test_bad_keys(bench: Bench, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bench.task().apply_async(**options)
    assert bench.waiting() == 0


def test_a_long_key(bench: Bench) -> None:
    task = bench.task()
    first = task.apply_async(idempotency_key="k" * 5000)
    assert task.apply_async(idempotency_key="k" * 5000).id == first.id
    assert task.apply_async(idempotency_key="k" * 4999).id != first.id


def test_a_key_in_a_workflow_is_refused(bench: Bench) -> None:
    task = bench.task()
    keyed = task.si().set(idempotency_key="k")
    workflows: list[Any] = [
        chain(keyed, task.si()),
        chain(task.si(), keyed),
        group([task.si(), keyed]),
        chord([task.si(), keyed], task.si()),
        chord([task.si(), task.si()], keyed),
    ]
    for workflow in workflows:
        with pytest.raises(ValueError, match="idempotency_key cannot be used within a chain, group, chord or callback"):
            workflow.apply_async()
    with pytest.raises(ValueError, match="cannot be used within"):
        task.apply_async(idempotency_key="k", producer=Collector())
    with pytest.raises(ValueError, match="many calls under one idempotency_key"):
        task.delay_many([(1,), (2,)], idempotency_key="k")
    task.apply_async(idempotency_key="k", link=task.si())  # what follows is another task
    assert bench.waiting() == 1


def test_many_with_keys_of_their_own(bench: Bench) -> None:
    task = bench.task()
    signatures = [task.s(n).set(idempotency_key=str(n % 3)) if n % 2 else task.s(n) for n in range(12)]
    results = bench.app.send_many(signatures)
    assert len(results) == 12
    assert bench.waiting() == 6 + 3
    assert len({result.id for result in results}) == 9


def test_what_was_perhaps_sent_is_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    task, publisher = bench.task(), bench.app.sender.publisher
    publish_if, calls = publisher.publish_if, []

    def lost(message: Message, changes: Any, *, timeout: float) -> Any:
        calls.append(message.id)
        answer = publish_if(message, changes, timeout=timeout)
        if len(calls) == 1:
            error = OperationalError("the answer got lost")
            error.uncertain = True
            raise error
        return answer

    monkeypatch.setattr(publisher, "publish_if", lost)
    result = task.apply_async(idempotency_key="k")
    assert calls == [result.id] * 2
    assert bench.waiting() == 1


def test_a_lock_alone_does_not_tell_what_was_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    task = bench.task(unique=True)
    error = OperationalError("the answer got lost")
    error.uncertain = True

    def lost(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(bench.app.sender.publisher, "publish_if", lost)
    with pytest.raises(OperationalError, match="got lost") as caught:
        task.delay()
    assert caught.value.uncertain


def test_receivers_hear_of_what_was_sent(bench: Bench) -> None:
    heard: list[str] = []
    task = bench.task()

    def hear(headers: Any, **_: Any) -> None:
        heard.append(headers["id"])

    signals.after_task_publish.connect(hear)
    try:
        first = task.apply_async(idempotency_key="k")
        task.apply_async(idempotency_key="k")
    finally:
        signals.after_task_publish.disconnect(hear)
    assert heard == [first.id]


def test_in_place_the_first_result_is_kept(bench: Bench) -> None:
    bench.app.conf.task_always_eager = True
    ran: list[int] = []
    task = bench.app.task(name="eager", shared=False)(lambda n: ran.append(n))
    first, second = (task.apply_async((n,), idempotency_key="k") for n in (1, 2))
    task.apply_async((3,), idempotency_key="other")
    assert (second.id, ran) == (first.id, [1, 3])


# -- unique


def test_equal_calls(bench: Bench) -> None:
    task = bench.task(unique="args")
    first = task.delay(1, b=2)
    for args, kwargs in (((1, 2), {}), ((), {"b": 2, "a": 1}), ((1,), {"c": 3}), ((), {})):
        assert task.apply_async(args, kwargs).id == first.id
    assert bench.app.send_task("t", (1,)).id == first.id
    assert task.delay(2).id != first.id
    assert task.delay([1, {"x": 1, "y": 2}]).id == task.delay((1, {"y": 2, "x": 1})).id
    assert task.delay("1").id != first.id
    assert bench.waiting() == 4


def test_one_of_a_name(bench: Bench) -> None:
    task, other = bench.task(unique=True), bench.task("u", unique=True)
    first = task.delay(1)
    assert task.delay(2).id == first.id != other.delay(1).id


def test_a_function_tells_them_apart(bench: Bench) -> None:
    task = bench.task(unique=lambda a, b=2, c=3: f"customer {a}")
    assert task.delay(1, 5).id == task.delay(1, 6).id != task.delay(2).id


def test_a_method_tells_them_apart(bench: Bench) -> None:
    class Sync(bench.app.Task):  # type: ignore[name-defined,misc]
        name = "sync"

        def unique(self, customer: int) -> str:
            return f"{self.name} {customer}"

        def run(self, customer: int) -> None: ...

    task = bench.app.register_task(Sync())
    assert task.delay(1).id == task.delay(1).id != task.delay(2).id


def test_raise(bench: Bench) -> None:
    task = bench.task(unique=True, on_conflict="raise")
    first = task.delay()
    with pytest.raises(TaskNotUnique, match=f"task t is not sent: an equal one, {first.id}, waits or runs") as caught:
        task.delay()
    assert (caught.value.task, caught.value.holder) == ("t", first.id)


def test_replace_one_that_waits(bench: Bench) -> None:
    task = bench.task(unique=True, on_conflict="replace")
    first, second = task.delay(1), task.delay(2)
    assert second.id != first.id
    assert bench.waiting() == 2, "the worker that meets the first drops it"
    assert first.state == "REVOKED"
    with pytest.raises(TaskRevokedError, match=f"replaced by {second.id}"):
        first.get(timeout=1)
    third = task.delay(3)
    assert second.state == "REVOKED"
    assert third.state == "PENDING"


def test_what_has_started_is_not_replaced(bench: Bench) -> None:
    task = bench.task(unique=True, on_conflict="replace")
    first = task.delay(1)
    (message,) = bench.taken()
    lock = lock_of(message)
    assert lock is not None
    bench.server.change_ledger([lock.begins()])
    assert task.delay(2).id == first.id
    assert first.state == "PENDING"


@pytest.mark.parametrize("conflict", ["return", "raise", "replace"])
@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED"])
def test_a_lock_that_nobody_freed_is_taken_over(bench: Bench, conflict: str, state: str) -> None:
    task = bench.task(unique=True, on_conflict=conflict)
    first = task.delay()
    bench.ends(first.id, state)
    second = task.delay()
    assert second.id != first.id
    assert bench.waiting() == 2
    bench.ends(second.id, "RETRY")
    if conflict == "return":
        assert task.delay().id == second.id, "a retry keeps the lock"


def test_a_lock_lives_beyond_the_due_time(bench: Bench) -> None:
    task = bench.task(unique=True, unique_for=timedelta(seconds=60))
    first = task.apply_async(countdown=1000)
    bench.pass_time(1050.0)
    assert task.delay().id == first.id
    bench.pass_time(20.0)
    assert task.delay().id != first.id


def test_the_lock_travels_with_the_message(bench: Bench) -> None:
    task = bench.task(unique=lambda *args, **kwargs: "x", unique_for=9, unique_until="start")
    result = task.delay()
    (message,) = bench.taken()
    assert message.headers[LOCK] == {"key": "lock:t:x", "for": 9.0, "until": "start"}
    assert lock_of(message) == Lock("lock:t:x", result.id, 9.0, True)


def test_a_part_of_a_workflow_takes_no_lock(bench: Bench) -> None:
    task = bench.task(unique=True)
    group([task.s(1), task.s(2)]).apply_async()
    chain(task.si(1), task.si(2)).apply_async()
    collector = Collector()
    task.apply_async(producer=collector)
    assert [LOCK in message.headers for message in (*bench.taken(), *collector.messages)] == [False] * 4
    first = task.delay()
    assert task.delay().id == first.id


def test_many_unique_ones(bench: Bench) -> None:
    task = bench.task(unique="args")
    results = task.delay_many([(n % 5,) for n in range(20)])
    assert (len(results), len({result.id for result in results}), bench.waiting()) == (20, 5, 5)
    results = bench.app.send_many([task.s(n) for n in range(7)])
    assert (len(results), bench.waiting()) == (7, 7)


def test_key_and_lock_together(bench: Bench) -> None:
    task = bench.task(unique=True, on_conflict="raise")
    first = task.apply_async(idempotency_key="k")
    assert task.apply_async(idempotency_key="k").id == first.id, "the same call"
    with pytest.raises(TaskNotUnique):
        task.apply_async(idempotency_key="other")
    bench.ends(first.id)
    assert task.apply_async(idempotency_key="k").id == first.id
    second = task.apply_async(idempotency_key="other")
    assert second.id != first.id, "the refused call has not taken its key"
    assert task.apply_async(idempotency_key="other").id == second.id


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unique": "kwargs"}, "unique must be True, 'args' or a function, not 'kwargs'"),
        ({"unique": True, "unique_until": "finish"}, "unique_until must be 'end' or 'start'"),
        ({"unique": True, "on_conflict": "drop"}, "on_conflict must be 'return', 'replace' or 'raise'"),
        ({"unique": True, "unique_for": 0}, "unique_for must be a number of seconds above 0"),
    ],
)
def test_bad_declarations(bench: Bench, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"task t: {words}"):
        bench.task(**options).delay()


def test_arguments_that_cannot_be_compared(bench: Bench) -> None:
    task = bench.task(unique="args")
    with pytest.raises(TypeError, match="task t: unique='args' cannot compare its arguments: "):
        task.delay({1: "one", "2": "two"})
    with pytest.raises(TypeError, match="what unique= of task u returned must be a text, not int"):
        bench.task("u", unique=lambda *args: 7).delay()


def test_one_queue_only(bench: Bench) -> None:
    from celeriac.client.queues import Exchange, Queue

    fan = Exchange("fan", "fanout")
    bench.app.conf.task_queues = [Queue("one", fan), Queue("two", fan)]
    with pytest.raises(ValueError, match="goes to several queues"):
        bench.task().apply_async(queue="one", idempotency_key="k")


def test_what_is_not_sent_leaves_no_payload(bench: Bench, tmp_path: Path) -> None:
    bench.app.conf.payload_store = str(tmp_path)
    bench.app.conf.payload_store_min_bytes = 2000
    task, strict = bench.task(unique=True), bench.task("strict", unique=True, on_conflict="raise")

    def stored() -> int:
        return sum(path.is_file() and path.parent != tmp_path for path in tmp_path.rglob("*"))

    large = "x" * 5000
    assert len({task.apply_async((large,), idempotency_key="k").id for _ in range(5)}) == 1 == stored()
    assert len({task.delay(large).id for _ in range(5)}) == 1 == stored()
    strict.delay(large)
    for _ in range(3):
        with pytest.raises(TaskNotUnique):
            strict.delay(large)
    assert stored() == 2
    payloads = payloads_of(bench.app.conf)
    assert payloads is not None
    assert all(payloads.fetch(each) for each in bench.taken()), "those of the messages that were sent are there"


def test_a_payload_that_cannot_be_dropped_goes_with_its_day(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.app.conf.payload_store = str(tmp_path)
    bench.app.conf.payload_store_min_bytes = 2000

    def away(*args: Any) -> None:
        raise OperationalError("the store is away")

    monkeypatch.setattr("celeriac.payloads.directory.Directory.drop", away)
    task = bench.task(unique=True)
    assert task.delay("x" * 5000).id == task.delay("x" * 5000).id
