"""What follows a task, where the broker cannot hold it."""

from __future__ import annotations

import pytest

from celeriac import Celery
from celeriac.model.message import Message
from celeriac.model.settle import DeadLetter
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import delivery
from tests.unit.worker.test_runner import body, ran, record


def test_a_follow_up_that_the_broker_cannot_hold_fails_the_task(
    app: Celery, runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="tell")
    def tell(task_id: str) -> None: ...

    def check(message: Message) -> None:
        if "own" in message.headers:
            raise ValueError("a header holds an integer of more than 64 bits")

    runner.follow_ups.check = check
    large, good = dict(tell.signature().set(headers={"own": 2**70})), dict(tell.signature())
    one = delivery("add", 1, 2, embed={"callbacks": [large, good], "errbacks": [large, good]})
    completion = ran(runner, one)
    assert isinstance(completion.settlement, DeadLetter)
    assert record(completion)["status"] == "FAILURE"
    assert "more than 64 bits" in record(completion)["result"]["exc_message"][0]
    assert [body(message)[0] for message in completion.publish] == [[one.message.id]], "of the errbacks one can be sent"
    assert "Errback tell raised" in caplog.text
