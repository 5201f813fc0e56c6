"""Payloads in a worker: fetched before a run, dropped after the end is written, never a reason to fail a task."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery
from celeriac.client.payloads import Payloads, payloads_of
from celeriac.codec.body import encode_body
from celeriac.exceptions import OperationalError, SoftTimeLimitExceeded
from celeriac.model import outcome as o
from celeriac.model.message import NO_MARKS, Delivery, Marks
from celeriac.model.settle import Completion, DeadLetter, DeadReason, Release, Verdict
from celeriac.payloads.directory import Directory
from celeriac.worker.completer import Completer
from celeriac.worker.payloads import PayloadDropper
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import FakeStore, UnifiedBroker, delivery, done, tokens, until

LARGE = "x" * 70_000


@pytest.fixture
def payloads(app: Celery, tmp_path: Path) -> Payloads:
    app.conf.payload_store = str(tmp_path)

    @app.task(name="echo")
    def echo(text: str) -> str:
        return text

    @app.task(name="echo_later")
    async def echo_later(text: str) -> str:
        return text

    found = payloads_of(app.conf)
    assert found is not None
    return found


def referring(payloads: Payloads, task: str, *args: Any, **fields: Any) -> Delivery:
    body = payloads.put_body(encode_body(args, {}), None)
    return delivery(task, body=body.body, content_type=body.content_type, **fields)


def ran(made: Any) -> Completion:
    assert isinstance(made, Completion)
    return made


def record(completion: Completion) -> dict[str, Any]:
    assert completion.result is not None
    loaded: dict[str, Any] = json.loads(completion.result.body)
    return loaded


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    def away() -> None:
        monkeypatch.setattr("celeriac.payloads.directory.Directory.read", _fails)
        monkeypatch.setattr("celeriac.payloads.directory.Directory.write", _fails)

    return away


def test_arguments_and_result(payloads: Payloads, make_runner: Callable[..., Runner]) -> None:
    stored = record(ran(make_runner().run(referring(payloads, "echo", LARGE))))
    assert (stored["status"], stored["result"]) == ("SUCCESS", None)
    assert payloads.get_result(stored["payload"], frozenset({"json"})) == LARGE


def test_those_of_a_coroutine(payloads: Payloads, make_runner: Callable[..., Runner]) -> None:
    completion = ran(asyncio.run(make_runner().arun(referring(payloads, "echo_later", LARGE))))
    assert payloads.get_result(record(completion)["payload"], frozenset({"json"})) == LARGE


@pytest.mark.parametrize(("step", "status"), [("read", "REVOKED"), ("write", "SUCCESS")])
def test_a_coroutine_is_ended_while_its_store_is_slow(
    payloads: Payloads, make_runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch, step: str, status: str
) -> None:
    """It has an end all the same: else it would be held for ever."""
    runner, one = make_runner(), referring(payloads, "echo_later", LARGE)
    real, busy, go_on = getattr(Directory, step), threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        busy.set()
        assert go_on.wait(30)
        return real(*args)

    monkeypatch.setattr(Directory, step, slow)

    async def main() -> Any:
        running = asyncio.create_task(runner.arun(one))
        assert await asyncio.to_thread(busy.wait, 30)
        runner.terminated[one.token] = o.Revoked("terminated")
        running.cancel()
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.wait_for(running, 30)

    assert record(ran(asyncio.run(main())))["status"] == status
    assert runner.terminated == {}


def test_a_member_of_a_chord_keeps_its_result(payloads: Payloads, make_runner: Callable[..., Runner]) -> None:
    embed = {"chord": {"task": "t", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}}
    body = payloads.put_body(encode_body((LARGE,), {}, embed), None)
    member = delivery("echo", body=body.body, content_type=body.content_type, headers={"group": "g", "group_index": 0})
    assert record(ran(make_runner().run(member)))["result"] == LARGE


def test_a_lost_one_is_dead_with_its_reason(payloads: Payloads, make_runner: Callable[..., Runner]) -> None:
    lost = referring(payloads, "echo", LARGE)
    payloads.drop_body(lost.message)  # type: ignore[arg-type]
    completion = ran(make_runner().run(lost))
    assert isinstance(completion.settlement, DeadLetter)
    assert completion.settlement.reason is DeadReason.REFUSED
    assert "PayloadLost: the payload" in completion.settlement.detail
    assert record(completion)["status"] == "FAILURE"


def test_a_worker_without_the_store_says_so(
    payloads: Payloads, app: Celery, make_runner: Callable[..., Runner]
) -> None:
    lost = referring(payloads, "echo", LARGE)
    app.conf.payload_store = None
    completion = ran(make_runner().run(lost))
    assert isinstance(completion.settlement, DeadLetter)
    assert "set payload_store here" in completion.settlement.detail


def test_arguments_that_are_away_are_waited_for(
    payloads: Payloads, make_runner: Callable[..., Runner], away: Callable[[], None]
) -> None:
    waiting = referring(payloads, "echo", LARGE)
    away()
    completion = ran(make_runner().run(waiting))
    assert isinstance(completion.settlement, Release)
    assert completion.settlement.due is not None
    assert completion.settlement.marks is None, "it does not count"
    assert completion.result is None


CHAIN = {"chain": [{"task": "echo", "args": (), "kwargs": {}, "options": {"task_id": "behind"}}]}


@pytest.mark.parametrize(
    ("outcome", "marks", "crashes"),
    [
        (o.Revoked("expired"), NO_MARKS, None),
        (o.Repeated("FAILURE"), NO_MARKS, None),
        (o.Lost(), Marks(crashes=3), None),
        (o.TimedOut(1.0), NO_MARKS, 1),
        (o.Crashed("signal 9"), Marks(crashes=2), 3),
    ],
)
def test_no_end_is_told_while_what_follows_is_away(
    payloads: Payloads,
    make_runner: Callable[..., Runner],
    monkeypatch: pytest.MonkeyPatch,
    outcome: o.Outcome,
    marks: Marks,
    crashes: int | None,
) -> None:
    body = payloads.put_body(encode_body((LARGE,), {}, CHAIN), None)
    ended = delivery("echo", body=body.body, content_type=body.content_type, marks=marks)
    runner = make_runner()
    with monkeypatch.context() as patch:
        patch.setattr("celeriac.payloads.directory.Directory.read", _fails)
        waits = runner.conclude(ended, outcome)
    assert isinstance(waits.settlement, Release)
    assert waits.settlement.due is not None
    assert (waits.settlement.marks and waits.settlement.marks.crashes) == crashes
    assert (waits.result, waits.others, waits.publish) == (None, (), ())
    over = runner.conclude(ended, outcome)
    assert not isinstance(over.settlement, Release)
    assert [each.id for each in over.others] == ["behind"] or isinstance(outcome, o.Repeated)


@pytest.mark.parametrize("outcome", [o.Unknown(), o.Crashed("signal 9")])
def test_what_goes_back_anyway_needs_no_payload(
    payloads: Payloads, make_runner: Callable[..., Runner], away: Callable[[], None], outcome: o.Outcome
) -> None:
    waiting = referring(payloads, "echo", LARGE)
    runner = make_runner()
    there = runner.conclude(waiting, outcome).settlement
    away()
    gone = runner.conclude(waiting, outcome).settlement
    assert isinstance(there, Release)
    assert isinstance(gone, Release)
    assert replace(there, due=None, marks=None) == replace(gone, due=None, marks=None)
    assert (there.marks and there.marks.crashes) == (gone.marks and gone.marks.crashes)
    assert (there.due is None) == (gone.due is None)


@pytest.mark.parametrize("acks_late", [True, False])
def test_a_soft_limit_outside_the_body_while_the_store_is_away(
    payloads: Payloads, app: Celery, make_runner: Callable[..., Runner], away: Callable[[], None], acks_late: bool
) -> None:
    app.tasks["echo"].acks_late = acks_late
    limited = referring(payloads, "echo", LARGE)
    away()
    completion = make_runner().limited(limited, SoftTimeLimitExceeded(1))
    assert isinstance(completion.settlement, Release) is acks_late
    assert (completion.result is None) is acks_late, "acknowledged before it ran, nothing brings it back"


def _fails(*args: Any) -> Any:
    raise OperationalError("the store is away")


def test_a_result_stays_in_its_record_when_the_store_is_away(
    payloads: Payloads, make_runner: Callable[..., Runner], away: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    away()
    assert record(ran(make_runner().run(delivery("echo", LARGE))))["result"] == LARGE
    assert "stays in its record" in caplog.text


def test_a_result_beyond_the_limit_fails_its_task(app: Celery, make_runner: Callable[..., Runner]) -> None:
    app.conf.max_message_bytes = 1_000_000

    @app.task(name="vast")
    def vast() -> str:
        return "x" * 2_000_000

    completion = ran(make_runner().run(delivery("vast")))
    assert record(completion)["result"]["exc_type"] == "MessageTooLarge"
    assert isinstance(completion.settlement, DeadLetter)
    assert "the result of vast is 2000" in completion.settlement.exception


# ------------------------------------------------------------ dropping


@pytest.mark.parametrize("unified", [True, False])
def test_the_completer_tells_of_those_that_were_accepted(unified: bool) -> None:
    accepted, fenced, released = delivery(), delivery(), delivery()
    ended: list[str] = []

    async def main() -> None:
        broker = UnifiedBroker(server="one")
        broker.verdicts[fenced.token] = Verdict.FENCED
        broker.gone.add(fenced.token)
        store = FakeStore(server="one" if unified else "other")
        completer = Completer(
            broker,  # type: ignore[arg-type]
            store,  # type: ignore[arg-type]
            lambda deliveries: None,
            rand=lambda: 0.0,
            ended=lambda deliveries: ended.extend(tokens(deliveries)),
        )
        running = asyncio.create_task(completer.run())
        completer.put([done(accepted), done(fenced), Completion(settlement=Release(released))])
        await completer.drain()
        running.cancel()

    asyncio.run(main())
    assert ended == [accepted.token]


def test_what_has_ended_is_dropped_but_not_its_copies(payloads: Payloads, tmp_path: Path) -> None:
    one, copy, inline = (
        referring(payloads, "echo", LARGE),
        referring(payloads, "echo", LARGE, exchange="fanout"),
        delivery("echo"),
    )

    async def main() -> None:
        PayloadDropper(payloads)([one, copy, inline])
        await until(lambda: len(list(tmp_path.glob("*/*"))) == 1)

    asyncio.run(main())
    assert payloads.fetch(copy.message)  # type: ignore[arg-type]


def test_a_store_that_is_away_is_left_to_the_sweep(
    payloads: Payloads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = referring(payloads, "echo", LARGE)

    def fails(*args: Any) -> Any:
        raise OperationalError("the store is away")

    monkeypatch.setattr("celeriac.payloads.directory.Directory.drop", fails)
    monkeypatch.setattr("celeriac.payloads.directory.Directory.sweep", fails)
    caplog.set_level("DEBUG")

    async def main() -> None:
        dropper = PayloadDropper(payloads)
        dropper([one])
        await dropper.sweep()
        await until(lambda: "is left to the sweep" in caplog.text)

    asyncio.run(main())
    assert "Cannot sweep the payload store: the store is away" in caplog.text
