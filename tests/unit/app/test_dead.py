"""``app.dead_letters`` on the memory broker, without a worker: letters are laid there by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from celeriac import Celery, chain
from celeriac.app.dead import DeadLetterNotFound, DeadLetterRefused, Retried
from celeriac.brokers import memory
from celeriac.brokers.memory.dead_port import MemoryDeadLetters
from celeriac.client import resolver
from celeriac.exceptions import OperationalError, QueueNotFound
from celeriac.model.dead import Stayed
from celeriac.model.ledger import lock_of
from celeriac.model.message import Delivery, Marks
from celeriac.model.settle import Completion, DeadLetter, DeadReason, Release
from celeriac.ports import Broker

_numbers = itertools.count()


@pytest.fixture
def app() -> Iterator[Celery]:
    url = f"memory://dead-{next(_numbers)}"
    made = Celery("dead", broker=url, backend=url, set_as_current=False)

    @made.task(name="pay", shared=False)
    def pay(amount: int, to: str = "") -> int:
        return amount

    @made.task(name="mail", shared=False)
    def mail(paid: int) -> None: ...

    yield made
    made.close()
    memory.drop(url)


def with_broker(app: Celery, work: Any) -> Any:
    async def main() -> Any:
        broker = resolver.broker(app.broker_url, resolver.adapter_options(app.conf, owner="test"))
        await broker.open()
        try:
            return await work(broker)
        finally:
            await broker.close()

    return asyncio.run(main())


def claim(app: Celery, *queues: str) -> list[Delivery]:
    async def work(broker: Broker) -> list[Delivery]:
        return list(await broker.claim(queues or ["celery"], limit=1000, wait=0.0))

    found: list[Delivery] = with_broker(app, work)
    return found


def bury(app: Celery, **facts: Any) -> None:
    """Everything that waits dies."""
    fields = {"reason": DeadReason.FAILED, "exception": "ValueError: x", "at": 1_000.0, **facts}

    async def work(broker: Broker) -> None:
        held = await broker.claim(["celery"], limit=1000, wait=0.0)
        await broker.settle([DeadLetter(delivery=each, **fields) for each in held])

    with_broker(app, work)


def send(app: Celery, *args: Any, **options: Any) -> Any:
    return app.tasks["pay"].apply_async(args, **options)


def test_looking(app: Celery) -> None:
    assert app.dead_letters.list() == ()
    assert app.dead_letters.count() == 0
    old = send(app, 1)
    bury(app)
    new = send(app, 2)
    bury(app, reason=DeadReason.CRASHED, at=datetime.now(UTC).timestamp() - 60, exception="WorkerLostError: gone")
    letters = app.dead_letters
    assert [each.id for each in letters.list()] == [new.id, old.id]
    assert [each.id for each in letters.list(limit=1)] == [new.id]
    assert [each.id for each in letters.iterate(reason="worker lost")] == [new.id]
    assert [each.id for each in letters.list(exception="valueerror", task="p*")] == [old.id]
    for since in (timedelta(hours=1), 3600, datetime.now(UTC) - timedelta(hours=1)):
        assert [each.id for each in letters.list(since=since)] == [new.id]
        assert [each.id for each in letters.list(older_than=since)] == [old.id]
    assert letters.count(task="pay") == 2
    assert letters.get(old.id).key == letters.get(letters.get(old.id).key).key == "1"
    assert letters.get(old.id[:12]).id == old.id
    assert letters.arguments(old.id) == ([1], {})


def test_filters_that_do_not_exist(app: Celery) -> None:
    with pytest.raises(ValueError, match="tired"):
        app.dead_letters.list(reason="tired")
    with pytest.raises(TypeError, match="no such filter of dead letters: name"):
        app.dead_letters.list(name="pay")  # type: ignore[call-arg]


def test_one_that_is_not_there_or_not_alone(app: Celery) -> None:
    letters = app.dead_letters
    for which in ("nobody", ""):
        with pytest.raises(DeadLetterNotFound):
            letters.get(which)
    send(app, 1, task_id="same-1")
    send(app, 2, task_id="same-2")
    bury(app)
    with pytest.raises(DeadLetterNotFound, match="2 dead letters fit 'same': name one by its key: 2, 1"):
        letters.retry("same")
    assert letters.get("same-1").id == "same-1"
    letters.drop("same-1")
    assert [each.id for each in letters.list()] == ["same-2"]
    with pytest.raises(DeadLetterNotFound):
        letters.drop("same-1")


def test_a_retry_keeps_the_id_and_opens_the_result(app: Celery) -> None:
    result = send(app, 1)
    bury(app)
    app.backend.store_result(result.id, ValueError("x"), "FAILURE", traceback="tb")
    again = app.dead_letters.retry(result.id)
    assert (again.id, again.state, again.traceback) == (result.id, "RETRY", "tb")
    assert isinstance(again.result, ValueError)
    (delivery,) = claim(app)
    assert delivery.message.id == result.id
    assert app.dead_letters.count() == 0
    app.backend.store_result(result.id, 5, "SUCCESS")
    assert again.get(timeout=1) == 5


def test_a_success_is_not_touched(app: Celery) -> None:
    result = send(app, 1)
    bury(app)
    app.backend.store_result(result.id, 5, "SUCCESS")
    assert app.dead_letters.retry(result.id).get(timeout=1) == 5


def test_a_result_that_cannot_be_read(app: Celery) -> None:
    result = send(app, 1)
    bury(app)
    app.conf.result_serializer = "msgpack"
    app.conf.result_accept_content = ["json", "msgpack"]
    app.backend.store_result(result.id, ValueError("x"), "FAILURE")
    app.conf.result_accept_content = ["json"]
    app.dead_letters.retry(result.id)
    app.conf.result_accept_content = ["json", "msgpack"]
    assert app.AsyncResult(result.id).state == "RETRY"


def test_what_is_behind_a_chains_step_is_open_again(app: Celery) -> None:
    last = chain(app.signature("pay", (1,)), app.signature("mail")).apply_async()
    bury(app)
    for each in (last.parent, last):
        app.backend.store_result(each.id, ValueError("x"), "FAILURE")
    app.dead_letters.retry(last.parent.id)
    assert [app.AsyncResult(each.id).state for each in (last.parent, last)] == ["RETRY", "PENDING"]


def test_other_arguments(app: Celery) -> None:
    letters = app.dead_letters
    result = send(app, 1, to="a", compression="gzip")
    bury(app)
    with pytest.raises(TypeError, match="amount"):
        letters.retry(result.id, args=[])
    with pytest.raises(TypeError, match="nobody"):
        letters.retry(result.id, kwargs={"nobody": 1})
    with pytest.raises(DeadLetterRefused, match="object"):
        letters.retry(result.id, args=[object()])
    assert letters.count() == 1
    letters.retry(result.id, args=[7], kwargs={"to": "b"}, countdown=3600)
    bury(app)
    assert claim(app) == []

    async def scheduled(broker: Broker) -> Any:
        return (await broker.depth(["celery"]))["celery"]

    assert with_broker(app, scheduled).scheduled == 1


def test_arguments_of_a_task_that_is_not_known_here(app: Celery) -> None:
    result = app.send_task("elsewhere", (1,))
    bury(app)
    app.dead_letters.retry(result.id, args=["any", "thing"])
    (delivery,) = claim(app)
    assert json.loads(delivery.message.body)[0] == ["any", "thing"]  # type: ignore[union-attr]


def test_another_queue(app: Celery) -> None:
    result = send(app, 1)
    bury(app)
    app.dead_letters.retry(result.id, to_queue="slow")
    assert [each.queue for each in claim(app, "celery", "slow")] == ["slow"]
    app.conf.task_create_missing_queues = False
    send(app, 2)
    bury(app)
    with pytest.raises(QueueNotFound):
        app.dead_letters.retry_all(to_queue="nowhere")
    assert app.dead_letters.count() == 1


def test_a_malformed_one_stays(app: Celery) -> None:
    with memory.server(app.broker_url).lock:
        memory.server(app.broker_url).queues.add("celery", b"\xff rubbish", step=0, due=None, now=0.0)
    bury(app, reason=DeadReason.MALFORMED)
    send(app, 1)
    bury(app)
    good, bad = app.dead_letters.list()
    with pytest.raises(DeadLetterRefused, match="is no task message"):
        app.dead_letters.retry(bad)
    done = app.dead_letters.retry_all()
    assert done.ids == (good.id,)
    assert [each.letter.key for each in done.skipped] == [bad.key]
    assert [each.raw for each in app.dead_letters.list()] == [b"\xff rubbish"]
    send(app, 2)
    bury(app)
    with memory.server(app.broker_url).lock:
        memory.server(app.broker_url).queues.add("celery", b"{", step=0, due=None, now=0.0)
    bury(app, reason=DeadReason.MALFORMED)
    done = app.dead_letters.retry_all(limit=1)
    assert (len(done.ids), len(done.skipped)) == (1, 1)  # what is skipped does not count
    assert app.dead_letters.arguments(bad) is None


def test_all_of_some(app: Celery) -> None:
    for number in range(450):
        send(app, number, task_id=f"id-{number}")
    bury(app)
    send(app, 0, task_id="other")
    bury(app, reason=DeadReason.REJECTED)
    letters = app.dead_letters
    assert letters.retry_all(reason="failed", limit=3).ids == ("id-449", "id-448", "id-447")
    assert letters.drop_all(reason="failed", limit=2) == 2
    assert len(letters.retry_all(reason="failed").ids) == 445
    assert [each.id for each in letters.list()] == ["other"]
    assert letters.retry_all(task="nobody") == Retried((), ())
    assert letters.drop_all() == 1
    assert len(claim(app)) == 448


def test_marks_and_redelivery_are_over(app: Celery) -> None:
    result = send(app, 1)

    async def marked(broker: Broker) -> None:
        (held,) = await broker.claim(["celery"], limit=1, wait=0.0)
        await broker.settle([Release(held, marks=Marks(crashes=2, suspect=True, expired_leases=5))])

    with_broker(app, marked)
    bury(app)
    assert (app.dead_letters.get(result.id).crashes, app.dead_letters.get(result.id).expired_leases) == (2, 5)
    app.dead_letters.retry(result.id)
    (delivery,) = claim(app)
    assert (delivery.marks, delivery.redelivered) == (Marks(), False)


def test_who_comes_second_hears_of_it(app: Celery) -> None:
    result = send(app, 1)
    bury(app)
    letter = app.dead_letters.get(result.id)
    app.dead_letters.drop(letter)
    with pytest.raises(DeadLetterNotFound):
        app.dead_letters.retry(letter)


def failed(app: Celery) -> Any:
    result = send(app, 1)
    bury(app)
    app.backend.store_result(result.id, ValueError("x"), "FAILURE", traceback="tb")
    return result


@pytest.mark.parametrize(("uncertain", "state"), [(False, "FAILURE"), (True, "RETRY")])
def test_what_was_not_sent_has_failed(app: Celery, uncertain: bool, state: str) -> None:
    result = failed(app)
    error = OperationalError("away")
    error.uncertain = uncertain
    with (
        mock.patch.object(MemoryDeadLetters, "replay", side_effect=error),
        pytest.raises(OperationalError, match="away"),
    ):
        app.dead_letters.retry(result.id)
    assert app.AsyncResult(result.id).state == state


def test_what_somebody_else_has_sent_meanwhile_is_as_it_was(app: Celery) -> None:
    result = failed(app)
    (letter,) = app.dead_letters.list()
    gone = [Stayed(letter.key)]
    with mock.patch.object(MemoryDeadLetters, "replay", return_value=gone), pytest.raises(DeadLetterNotFound):
        app.dead_letters.retry(letter)
    again = app.AsyncResult(result.id)
    assert (again.state, again.traceback) == ("FAILURE", "tb")


def test_without_a_result_backend() -> None:
    url = f"memory://dead-{next(_numbers)}"
    app = Celery("dead", broker=url, backend="disabled://", set_as_current=False)
    app.send_task("t", task_id="one")
    bury(app)
    app.dead_letters.retry("one")
    assert len(claim(app)) == 1
    app.close()
    memory.drop(url)


# -- unique tasks


@pytest.fixture
def unique(app: Celery) -> Any:
    """A unique task, and ``die(*args)``: one of it is sent and dies, and its lock is freed."""

    @app.task(name="unique", shared=False, unique="args")
    def unique(x: int, y: int = 0) -> None: ...

    return app.tasks["unique"]


def die(app: Celery, task: Any, *args: Any) -> str:
    sent = task.delay(*args)

    async def work(broker: Any) -> None:
        held = await broker.claim(["celery"], limit=1000, wait=0.0)
        (mine,) = (each for each in held if each.message.id == sent.id)
        letter = DeadLetter(delivery=mine, reason=DeadReason.FAILED)
        done = Completion(settlement=letter, frees=(lock_of(mine.message),))
        await broker.finish([done, *(Completion(settlement=Release(each)) for each in held if each is not mine)])

    with_broker(app, work)
    app.backend.store_result(sent.id, ValueError("x"), "FAILURE")
    return str(sent.id)


def test_a_unique_task_is_not_sent_again_beside_an_equal_one(app: Celery, unique: Any) -> None:
    dead = die(app, unique, 1)
    equal = unique.delay(1)
    with pytest.raises(DeadLetterRefused, match=f"not sent again: an equal one, {equal.id}, waits or runs"):
        app.dead_letters.retry(dead)
    (skipped,) = app.dead_letters.retry_all().skipped
    assert (skipped.letter.id, skipped.why) == (dead, f"an equal one, {equal.id}, waits or runs")
    assert app.AsyncResult(dead).state == "FAILURE", "its record says what it said before"
    assert app.dead_letters.count() == 1
    assert [each.message.id for each in claim(app)] == [equal.id]
    app.backend.store_result(equal.id, None, "SUCCESS")
    assert app.dead_letters.retry(dead).id == dead, "the lock of one that is over is taken over"
    assert unique.delay(1).id == dead, "it holds the lock again"


def test_of_equal_dead_letters_one_is_sent_again(app: Celery, unique: Any) -> None:
    first, second, other = die(app, unique, 1), die(app, unique, 1), die(app, unique, 2)
    done = app.dead_letters.retry_all()
    assert (done.ids, [each.letter.id for each in done.skipped]) == ((other, second), [first])
    assert [app.AsyncResult(each).state for each in (first, second, other)] == ["FAILURE", "RETRY", "RETRY"]


def test_other_arguments_are_under_another_lock(app: Celery, unique: Any) -> None:
    dead = die(app, unique, 1)
    app.dead_letters.retry(dead, args=[7], countdown=50)
    assert unique.delay(1).id != dead
    assert unique.delay(x=7, y=0).id == dead


def test_a_lock_that_nobody_has_freed_is_its_own(app: Celery, unique: Any) -> None:
    dead = unique.delay(1)
    bury(app)
    assert app.dead_letters.retry(dead.id).id == dead.id == unique.delay(1).id
