"""One delivery through the pipe: decode, run, decide, encode."""

from __future__ import annotations

import asyncio
import json
import mmap
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Celery
from celeriac.app import trace
from celeriac.codec.body import decode_body
from celeriac.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Release
from celeriac.worker.runner import Runner
from celeriac.worker.slot import SLOT_SIZE, Running, Slot
from tests.unit.worker.fakes import delivery, malformed

Make = Callable[..., Runner]


def ran(runner: Runner, each: Delivery) -> Completion:
    completion = runner.run(each)
    assert isinstance(completion, Completion)
    return completion


def record(completion: Completion) -> dict[str, Any]:
    assert completion.result is not None
    loaded: dict[str, Any] = json.loads(completion.result.body)
    return loaded


def body(message: Message) -> tuple[list[Any], dict[str, Any]]:
    args, kwargs, _ = decode_body(message, accept=frozenset({"json"}), max_bytes=1 << 20)
    return args, kwargs


@pytest.fixture
def add(app: Celery) -> Any:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    return add


def test_success(runner: Runner, add: Any) -> None:
    one = delivery("add", 2, 3, headers={"group": "g", "parent_id": "p"})
    completion = ran(runner, one)
    assert completion.settlement == Accept(one)
    assert completion.publish == ()
    stored = record(completion)
    assert stored.pop("date_done")
    assert stored == {
        "status": "SUCCESS",
        "result": 5,
        "traceback": None,
        "children": [],
        "group_id": "g",
        "parent_id": "p",
        "task_id": one.message.id,
    }
    assert completion.result is not None
    assert completion.result.terminal
    assert completion.result.expires == 86_400.0


def test_the_instant_it_was_done(runner: Runner, add: Any) -> None:
    instants = []
    for now in (1_800_000_000.0, 1_800_000_000.25, 1_800_000_000.999999, 1_800_000_059.5, 1_800_000_000.5):
        runner.now = lambda now=now: now  # type: ignore[misc]
        instants.append(record(ran(runner, delivery("add", 1, 1)))["date_done"])
    assert instants == [
        "2027-01-15T08:00:00.000000+00:00",
        "2027-01-15T08:00:00.250000+00:00",
        "2027-01-15T08:00:00.999999+00:00",
        "2027-01-15T08:00:59.500000+00:00",
        "2027-01-15T08:00:00.500000+00:00",
    ]


def test_failure(app: Celery, runner: Runner) -> None:
    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("bad", 42)

    one = delivery("fail")
    completion = ran(runner, one)
    settlement, stored = completion.settlement, record(completion)
    assert isinstance(settlement, DeadLetter)
    assert (settlement.reason, settlement.worker) == (DeadReason.FAILED, "w@h")
    assert "ValueError" in settlement.exception
    assert stored["status"] == "FAILURE"
    assert stored["result"] == {"exc_type": "ValueError", "exc_message": ["bad", 42], "exc_module": "builtins"}
    assert stored["traceback"].startswith("Traceback")
    assert "raise ValueError" in stored["traceback"]


def test_ignore_and_reject(app: Celery, runner: Runner) -> None:
    @app.task(name="end")
    def end(how: str) -> None:
        raise Ignore() if how == "ignore" else Reject("no", requeue=how == "requeue")

    ignored, requeued, rejected = (delivery("end", how) for how in ("ignore", "requeue", "reject"))
    assert ran(runner, ignored) == Completion(settlement=Accept(ignored))
    assert ran(runner, requeued) == Completion(settlement=Release(requeued, back=True))
    completion = ran(runner, rejected)
    assert isinstance(completion.settlement, DeadLetter)
    assert completion.settlement.reason is DeadReason.REJECTED


def test_retry_is_a_follow_up_and_a_record_that_is_not_the_end(app: Celery, runner: Runner) -> None:
    @app.task(name="again", bind=True)
    def again(self: Any, x: int) -> None:
        raise self.retry(exc=KeyError("missing"), countdown=10)

    one = delivery("again", 7, retries=1, headers={"retries": 1})
    completion = ran(runner, one)
    (following,) = completion.publish
    assert completion.settlement == Accept(one)
    assert (following.id, following.retries) == (one.message.id, 2)
    assert following.due == pytest.approx(time.time() + 10, abs=5)
    assert body(following) == ([7], {})
    stored = record(completion)
    assert (stored["status"], stored["retries"], stored["date_done"]) == ("RETRY", 1, None)
    assert stored["result"]["exc_type"] == "KeyError"
    assert completion.result is not None
    assert not completion.result.terminal


def test_retry_without_leaving_the_task(app: Celery, runner: Runner) -> None:
    @app.task(name="both", bind=True)
    def both(self: Any) -> str:
        self.retry(throw=False, countdown=5)
        return "done"

    one = delivery("both")
    completion = ran(runner, one)
    assert record(completion)["result"] == "done"
    assert [(each.id, each.retries) for each in completion.publish] == [(one.message.id, 1)]


def test_follow_ups_are_collected_not_published(app: Celery, runner: Runner, add: Any) -> None:
    link = add.signature(args=(10,))
    link.freeze("link-id")
    chain = [dict(add.signature(args=(100,)).clone()), dict(add.signature(args=(20,)).clone())]
    one = delivery("add", 1, 2, embed={"callbacks": [dict(link)], "chain": chain}, headers={"root_id": "root"})
    completion = ran(runner, one)
    callback, step = completion.publish
    assert (callback.id, body(callback)) == ("link-id", ([3, 10], {}))
    assert body(step)[0] == [3, 20]
    for each in (callback, step):
        assert (each.headers["root_id"], each.headers["parent_id"]) == ("root", one.message.id)
    assert [child[0][0] for child in record(completion)["children"]] == [callback.id, step.id]


def test_a_follow_up_that_cannot_be_sent_fails_the_task(app: Celery, runner: Runner, add: Any) -> None:
    one = delivery("add", 1, 2, embed={"callbacks": [{"task": 5}]})
    completion = ran(runner, one)
    assert completion.publish == ()
    assert record(completion)["status"] == "FAILURE"
    assert isinstance(completion.settlement, DeadLetter)


# -- what cannot be run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"body": b"{"}, "DecodeError"),
        ({"body": b"[1, 2]"}, "InvalidTaskError"),
        ({"body": b"\x80\x04", "content_type": "application/x-python-serialize"}, "ContentDisallowed"),
        ({"body": b"[" * 100_000}, "DecodeError"),
        ({"headers": {"compression": "application/x-gzip"}, "body": b"nonsense"}, "DecodeError"),
    ],
)
def test_bodies_that_are_refused(runner: Runner, add: Any, fields: dict[str, Any], error: str) -> None:
    completion = ran(runner, delivery("add", **fields))
    assert isinstance(completion.settlement, DeadLetter)
    assert completion.settlement.reason is DeadReason.REFUSED
    assert completion.settlement.detail.startswith(error)
    assert record(completion)["result"]["exc_type"] == error
    assert runner.count == 0


def test_a_body_that_is_too_large(app: Celery, make_runner: Make, add: Any) -> None:
    app.conf.max_message_bytes = 100
    completion = ran(make_runner(), delivery("add", "x" * 200, 1))
    assert record(completion)["result"]["exc_type"] == "MessageTooLarge"


def test_arguments_that_do_not_fit(runner: Runner, add: Any) -> None:
    stored = record(ran(runner, delivery("add", 1)))
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "TypeError")
    assert "missing 1 required positional argument" in stored["result"]["exc_message"][0]


def test_malformed_and_unknown_ones_that_slipped_through(runner: Runner) -> None:
    bad, unknown = ran(runner, malformed(id="x", task="t")), ran(runner, delivery("nobody"))
    assert isinstance(bad.settlement, DeadLetter)
    assert bad.result is None
    assert isinstance(unknown.settlement, Release)
    assert unknown.settlement.marks is not None


def test_without_a_certain_lease_nothing_runs(runner: Runner, add: Any) -> None:
    one = delivery("add", 1, 2)
    runner.valid_until = time.monotonic() - 1
    assert runner.run(one) is one
    assert asyncio.run(runner.arun(one)) is one
    assert runner.count == 0


# -- what cannot be encoded ----------------------------------------------------------------------------------------


def test_a_result_that_cannot_be_encoded_is_a_failure(app: Celery, runner: Runner) -> None:
    @app.task(name="odd")
    def odd() -> object:
        return object()

    completion = ran(runner, delivery("odd"))
    stored = record(completion)
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "EncodeError")
    assert isinstance(completion.settlement, DeadLetter)


def test_nobody_minds_when_it_is_not_stored(app: Celery, make_runner: Make) -> None:
    @app.task(name="odd", ignore_result=True)
    def odd() -> object:
        return object()

    one = delivery("odd")
    assert ran(make_runner(), one) == Completion(settlement=Accept(one))
    stored = app.task(name="odd2")(lambda: object())
    assert ran(make_runner(results=False), delivery(stored.name)).result is None


class Hostile(Exception):
    """Nothing can be done with it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("argument", [object(), {1, 2}, float("nan"), "\udcff", b"\xff", Hostile()])
def test_exceptions_with_arguments_of_any_kind(app: Celery, runner: Runner, argument: Any) -> None:
    @app.task(name="fail")
    def fail() -> None:
        raise ValueError(argument)

    stored = record(ran(runner, delivery("fail")))
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "ValueError")


def test_exceptions_that_cannot_be_shown(app: Celery, make_runner: Make) -> None:
    @app.task(name="fail", bind=True)
    def fail(self: Any, retry: bool) -> None:
        if retry:
            raise self.retry(exc=Hostile(), countdown=1)
        raise Hostile

    @app.task(name="auto", autoretry_for=(Hostile,))
    def auto() -> None:
        raise Hostile

    runner, heard = make_runner(), []
    runner.report.events, runner.report.emit = True, lambda kind, fields: heard.append((kind, fields))
    assert record(ran(runner, delivery("fail", False)))["status"] == "FAILURE"
    assert record(ran(runner, delivery("fail", True)))["status"] == "RETRY"
    assert record(ran(runner, delivery("auto")))["status"] == "RETRY"
    assert [kind for kind, _ in heard if kind not in ("task-received", "task-started")] == [
        "task-failed",
        "task-retried",
        "task-retried",
    ]


def test_a_tracer_that_raises_fails_one_task(app: Celery, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """An add-on's, around ours; the executors rely on it that ``run`` does not raise."""
    soft = Soft()

    def raising(*args: Any, **kwargs: Any) -> Any:
        return lambda task_id, args, kwargs, request: 1 / 0

    monkeypatch.setattr(trace, "build_tracer", raising)
    app.task(name="wrapped", soft_time_limit=5.0)(lambda: None)
    completion = runner.run(delivery("wrapped"), soft)
    assert isinstance(completion, Completion)
    assert record(completion)["result"]["exc_type"] == "ZeroDivisionError"
    assert soft.calls == [5.0, "off"]


def test_a_soft_limit_outside_the_body(app: Celery, make_runner: Make, add: Any) -> None:
    slot = Slot(mmap.mmap(-1, SLOT_SIZE), 0)
    one = delivery("add", 1, 2)
    slot.begin(one.token, one.message.id, 1.0, 2.0, 1.0)
    completion = make_runner(slot=slot).limited(one, SoftTimeLimitExceeded(1.0))
    assert record(completion)["result"]["exc_type"] == "SoftTimeLimitExceeded"
    assert slot.running() is None


def test_arguments_that_cannot_be_stored_beside_the_result(app: Celery, make_runner: Make) -> None:
    import pickle

    app.conf.accept_content = ["pickle", "json"]

    @app.task(name="odd", result_extended=True)
    def odd(x: object) -> int:
        return 1

    app.conf.result_extended = True
    raw = pickle.dumps(([object()], {}, {}))
    one = delivery("odd", body=raw, content_type="application/x-python-serialize", content_encoding="binary")
    stored = record(ran(make_runner(), one))
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "EncodeError")
    assert (stored["name"], stored["args"]) == ("odd", None)


# -- around the run ------------------------------------------------------------------------------------------------


class Soft:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def arm(self, limit: float, started: float, hard: float | None = None) -> None:
        self.calls.append(limit)

    def disarm(self) -> None:
        self.calls.append("off")


@pytest.mark.parametrize(
    ("own", "task", "all_tasks", "limit"),
    [(None, None, None, None), (None, None, 9.0, 9.0), (None, 5.0, 9.0, 5.0), (2.0, 5.0, 9.0, 2.0)],
)
def test_soft_limits(
    app: Celery, make_runner: Make, own: float | None, task: float | None, all_tasks: float | None, limit: float | None
) -> None:
    app.task(name="quick", soft_time_limit=task)(lambda: None)
    runner, soft = make_runner(soft_time_limit=all_tasks), Soft()
    one = delivery("quick", soft_time_limit=own)
    runner.run(one, soft)
    assert soft.calls == ([] if limit is None else [limit, "off"])
    assert runner.soft_limit(one) == limit


def test_a_failing_task_disarms_too(app: Celery, runner: Runner) -> None:
    app.task(name="fail", soft_time_limit=5.0)(lambda: 1 / 0)
    soft = Soft()
    runner.run(delivery("fail"), soft)
    assert soft.calls == [5.0, "off"]


@pytest.mark.parametrize(
    ("own", "task", "all_tasks", "limit"),
    [(None, None, None, 0.0), (None, None, 9.0, 9.0), (None, 5.0, 9.0, 5.0), (2.0, 5.0, 9.0, 2.0)],
)
def test_the_slot_names_what_runs_and_its_hard_limit(
    app: Celery, make_runner: Make, own: float | None, task: float | None, all_tasks: float | None, limit: float
) -> None:
    slot = Slot(mmap.mmap(-1, SLOT_SIZE), 0)
    seen: list[Running | None] = []
    app.task(name="look", time_limit=task)(lambda: seen.append(slot.running()))
    one = delivery("look", time_limit=own)
    ran(make_runner(slot=slot, time_limit=all_tasks), one)
    (running,) = seen
    assert running is not None
    assert (running.token, running.id, running.limit) == (one.token, one.message.id, limit)
    assert running.deadline == (running.started + limit if limit else None)
    assert slot.running() is None


def test_track_started(app: Celery, runner: Runner, add: Any) -> None:
    app.task(name="tracked", track_started=True)(lambda: None)
    records: list[Any] = []
    runner.started = records.append
    one = delivery("tracked", headers={"group": "g"})
    ran(runner, one)
    ran(runner, delivery("add", 1, 2))
    (started,) = records
    stored = json.loads(started.body)
    assert (stored["status"], stored["result"]["hostname"], stored["group_id"]) == ("STARTED", "w@h", "g")
    assert (started.id, started.terminal) == (one.message.id, False)


def test_result_extended(app: Celery, make_runner: Make, add: Any) -> None:
    app.conf.result_extended = True
    runner = make_runner()
    stored = record(ran(runner, delivery("add", 1, kwargs={"y": 2}, routing_key="q", retries=3)))
    fields = {key: stored[key] for key in ("name", "args", "kwargs", "worker", "retries", "queue")}
    assert fields == {"name": "add", "args": [1], "kwargs": {"y": 2}, "worker": "w@h", "retries": 3, "queue": "q"}


def test_totals_and_averages(app: Celery, runner: Runner, add: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    after: list[int] = []
    runner.after = lambda: after.append(runner.count)
    assert runner.expect("add") == 1.0
    ran(runner, delivery("add", 1, 1))
    first = runner.runtimes["add"]
    assert 0 < first < 1
    runner.runtimes["add"] = 10.0
    ran(runner, delivery("add", "x", 1))  # fails, and counts
    assert runner.runtimes["add"] == pytest.approx(8.0, abs=0.1)
    assert runner.expect("add") == runner.runtimes["add"]
    ran(runner, delivery("add", body=b"{"))
    ran(runner, delivery("nobody"))
    assert (runner.totals, runner.count, after) == ({"add": 2}, 2, [1, 2])


def test_a_task_registered_later_is_found(app: Celery, runner: Runner) -> None:
    assert runner.entry("later") is None
    app.task(name="later")(lambda: None)
    assert runner.entry("later") is not None


# -- coroutines ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper(app: Celery) -> Any:
    @app.task(name="sleeper")
    async def sleeper() -> None:
        await asyncio.Event().wait()

    return sleeper


def test_a_coroutine(app: Celery, runner: Runner) -> None:
    @app.task(name="co")
    async def co(x: int) -> int:
        await asyncio.sleep(0)
        return x

    completion = asyncio.run(runner.arun(delivery("co", 3)))
    assert isinstance(completion, Completion)
    assert record(completion)["result"] == 3
    assert runner.totals == {"co": 1}


def ended(runner: Runner, one: Delivery) -> dict[str, Any]:
    async def main() -> Completion | Delivery:
        running = asyncio.create_task(runner.arun(one))
        for _ in range(5):
            await asyncio.sleep(0)
        running.cancel()
        return await asyncio.wait_for(running, 5)

    completion = asyncio.run(main())
    assert isinstance(completion, Completion)
    return record(completion)


@pytest.mark.parametrize("limits", [{}, {"time_limit": 60.0}, {"soft_time_limit": 30.0}])
def test_a_coroutine_ended_on_request_is_revoked(runner: Runner, sleeper: Any, limits: dict[str, float]) -> None:
    one = delivery("sleeper", **limits)
    runner.terminated[one.token] = o.Revoked("terminated", by="me", why="why")
    stored = ended(runner, one)
    assert (stored["status"], stored["result"]["exc_message"]) == ("REVOKED", ["terminated by me: why"])
    assert runner.terminated == {}


@pytest.mark.parametrize("limits", [{}, {"time_limit": 60.0}])
def test_a_coroutine_cancelled_otherwise_has_failed(runner: Runner, sleeper: Any, limits: dict[str, float]) -> None:
    stored = ended(runner, delivery("sleeper", **limits))
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "CancelledError")


def test_limits_of_coroutines(runner: Runner, sleeper: Any) -> None:
    soft = asyncio.run(runner.arun(delivery("sleeper", soft_time_limit=0.01)))
    hard = asyncio.run(runner.arun(delivery("sleeper", time_limit=0.01)))
    assert isinstance(soft, Completion)
    assert isinstance(hard, Completion)
    assert record(soft)["result"]["exc_type"] == "SoftTimeLimitExceeded"
    assert re.search("TimeLimitExceeded", record(hard)["result"]["exc_type"])
    assert isinstance(hard.settlement, DeadLetter)
    assert hard.settlement.reason is DeadReason.TIME_LIMIT
