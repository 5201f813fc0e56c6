"""Request classes of the user's own that fail."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from celeriac import Celery, Task
from celeriac.app.request import Request
from celeriac.model.settle import Completion, DeadLetter
from celeriac.worker.runner import Runner
from tests.unit.worker.fakes import delivery


class Failing(Request):
    @classmethod
    def from_message(cls, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the user's own")


class Failed(Task):  # type: ignore[type-arg]
    Request = Failing
    request_class = Failing


@pytest.mark.parametrize("is_async", [False, True])
def test_one_that_cannot_be_made_costs_its_task_alone(app: Celery, runner: Runner, is_async: bool) -> None:
    @app.task(name="sync", base=Failed)
    def sync() -> None: ...

    @app.task(name="async", base=Failed)
    async def later() -> None: ...

    made = asyncio.run(runner.arun(delivery("async"))) if is_async else runner.run(delivery("sync"))
    assert isinstance(made, Completion)
    assert isinstance(made.settlement, DeadLetter)
    assert made.result is not None
    assert json.loads(made.result.body)["result"]["exc_message"] == ["the user's own"]
