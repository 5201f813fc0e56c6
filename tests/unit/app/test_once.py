"""Steps of tasks that run in place; with workers: tests/integration/test_keys.py."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celery
from celeriac.exceptions import EncodeError, ImproperlyConfigured, OperationalError


def test_in_place_a_retry_knows_its_steps(app: Celery) -> None:
    calls: list[int] = []

    @app.task(bind=True, max_retries=3)
    def task(self: Any) -> Any:
        self.once("a", calls.append, self.request.retries)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.step_key("a")

    result = task.apply()
    assert result.get() == f"{result.id}:a"
    assert calls == [0]
    task.apply()
    assert calls == [0, 0]


def test_a_call_as_a_function_remembers_within_it(app: Celery) -> None:
    calls: list[int] = []

    @app.task(bind=True)
    def task(self: Any) -> Any:
        return [self.once("a", lambda: calls.append(1) or len(calls)) for _ in range(3)]

    assert task() == [1, 1, 1]
    assert task() == [2, 2, 2]


async def _co() -> tuple[int, int]:
    return 1, 2


def test_what_is_recorded_is_what_returns(app: Celery) -> None:
    @app.task(bind=True)
    async def task(self: Any) -> Any:
        return await self.once("a", _co), await self.once("a", _co)

    assert task.apply().get() == ([1, 2], [1, 2])


def test_records_are_not_kept_for_ever(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.app.once._LOCAL_LIMIT", 3)

    @app.task(bind=True)
    def task(self: Any) -> None:
        for number in range(5):
            self.once(f"step-{number}", int)

    task.apply()
    assert len(app.task_steps._local) == 3


def test_what_json_cannot_hold(app: Celery) -> None:
    @app.task(bind=True)
    def task(self: Any) -> None:
        self.once("a", object)

    with pytest.raises(EncodeError, match=r"what the step 'a' returned cannot be recorded: a value of type .*object"):
        task()


class Ledger:
    """Away for so many calls."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.values: dict[str, Any] = {}

    def _meet(self) -> None:
        if self.away:
            self.away -= 1
            raise OperationalError("away")

    def read(self, keys: Any, *, timeout: float) -> Any:
        return [self.values.get(key) for key in keys]

    def change(self, changes: Any, *, timeout: float) -> Any:
        for change in changes:
            self.values[change.key] = change.value
        self._meet()
        return [True]

    def close(self) -> None: ...


class Request:
    called_directly, is_eager, id = False, False, "i"


def test_what_has_run_is_recorded_after_an_outage(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, calls = Ledger(3), []
    monkeypatch.setattr("celeriac.app.once._PAUSE", 0.0)
    monkeypatch.setattr("celeriac.client.resolver.ledger", lambda url, options: ledger)
    assert app.task_steps.run(Request(), "a", lambda: calls.append(1), (), {}) is None
    assert app.task_steps.run(Request(), "a", lambda: calls.append(1), (), {}) is None
    assert calls == [1]


def test_an_outage_without_end_is_told(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.app.once._PERSIST", 0.0)
    monkeypatch.setattr("celeriac.client.resolver.ledger", lambda url, options: Ledger(99))
    with pytest.raises(OperationalError, match="away"):
        app.task_steps.run(Request(), "a", int, (), {})


def test_where_steps_are_recorded(app: Celery) -> None:
    app.conf.ledger_url = "memory://elsewhere"
    app.task_steps.run(Request(), "a", int, (), {})
    from celeriac.client import resolver

    there = resolver.ledger("memory://elsewhere", resolver.adapter_options(app.conf))
    assert list(there.read(["step:i:a"], timeout=1.0)) == [b"0"]


def test_a_server_without_a_ledger(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    from celeriac.brokers import memory

    monkeypatch.delattr(memory, "ledger")
    with pytest.raises(
        ImproperlyConfigured, match=r"self.once\(\) needs a ledger, and neither memory:// nor .*: set ledger_url"
    ):
        app.task_steps.run(Request(), "a", int, (), {})
