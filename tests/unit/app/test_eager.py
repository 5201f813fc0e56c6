from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celeriac import Celery, chain
from celeriac.exceptions import EncodeError, Ignore, Reject, Retry
from celeriac.result import EagerResult
from tests.unit.app.conftest import Collector


def test_apply(app: Celery) -> None:
    @app.task(bind=True)
    def f(self: Any, x: int, y: int = 0) -> Any:
        request = self.request
        return x + y, request.is_eager, request.called_directly, request.id, request.root_id, request.tenant

    result = f.apply((1,), {"y": 2}, task_id="i", headers={"tenant": 7})
    assert isinstance(result, EagerResult)
    assert result.get() == (3, True, False, "i", "i", 7)
    assert (result.state, result.id, result.name) == ("SUCCESS", "i", f.name)


def test_failure_is_a_result_or_raised(app: Celery) -> None:
    @app.task
    def f() -> None:
        raise ValueError("bad")

    result = f.apply()
    assert (result.state, str(result.result)) == ("FAILURE", "bad")
    assert result.traceback is not None
    assert "in f" in result.traceback
    with pytest.raises(ValueError, match="bad"):
        result.get()
    with pytest.raises(ValueError, match="bad"):
        f.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="bad"):
        f.apply()


def test_retries_happen_at_once(app: Celery) -> None:
    @app.task(bind=True, max_retries=3)
    def f(self: Any, until: int) -> Any:
        if self.request.retries < until:
            raise self.retry(exc=ValueError("again"), countdown=3600)
        return self.request.retries, self.request.id

    assert f.apply((2,), task_id="i").get() == (2, "i")
    failed = f.apply((9,))
    assert (failed.state, str(failed.result)) == ("FAILURE", "again")
    with pytest.raises(Retry) as caught:
        f.apply((1,), throw=True)
    assert caught.value.is_eager
    assert caught.value.sig.options["retries"] == 1


def test_autoretry(app: Celery) -> None:
    attempts: list[int] = []

    @app.task(bind=True, autoretry_for=(KeyError,), max_retries=2)
    def f(self: Any) -> None:
        attempts.append(self.request.retries)
        raise KeyError("k")

    assert f.apply().state == "FAILURE"
    assert attempts == [0, 1, 2]


def test_ignore_and_reject(app: Celery) -> None:
    @app.task
    def f(exc: Exception) -> None:
        raise exc

    assert f.apply((Ignore(),)).state == "IGNORED"
    assert f.apply((Reject("why"),)).state == "REJECTED"


def test_coroutine_with_and_without_a_running_loop(app: Celery) -> None:
    @app.task(bind=True)
    async def f(self: Any, x: int) -> Any:
        await asyncio.sleep(0)
        return x + 1, self.request.id

    async def main() -> Any:
        return f.apply((1,), task_id="i").get()

    assert f.apply((1,), task_id="i").get() == (2, "i")
    assert asyncio.run(main()) == (2, "i")


def test_callbacks_are_sent(app: Celery, collecting: Collector) -> None:
    add = app.task(name="add")(lambda x, y: x + y)
    add.apply((1, 2), task_id="i", link=add.s(10))
    assert collecting.body()[:2] == ([3, 10], {})
    assert (collecting.last.headers["parent_id"], collecting.last.headers["root_id"]) == ("i", "i")


def test_errbacks_are_called_as_a_worker_calls_them(app: Celery) -> None:
    told: list[Any] = []
    failing = app.task(name="fail")(lambda: 1 / 0)
    old = app.task(name="old")(lambda task_id: told.append(task_id))
    new = app.task(name="new")(lambda request, exc, traceback: told.append((request.id, type(exc))))
    failing.apply(task_id="j", link_error=[old.s(), new.s()])
    assert told == ["j", ("j", ZeroDivisionError)]


def test_always_eager(app: Celery) -> None:
    app.conf.task_always_eager = True
    seen: list[Any] = []

    @app.task
    def f(x: Any) -> Any:
        seen.append(x)
        return x

    assert f.delay((1, 2)).get() == [1, 2]
    assert f.apply_async(((3,),), link=f.s()).get() == [3]
    assert seen == [[1, 2], [3], [3]]
    with pytest.raises(EncodeError):
        f.delay(object())
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        f.delay()  # type: ignore[call-arg]


def test_always_eager_passes_options(app: Celery) -> None:
    app.conf.task_always_eager = True

    @app.task(bind=True, queue="q")
    def f(self: Any) -> Any:
        return self.request.id, self.request.headers, self.request.delivery_info["priority"]

    assert f.apply_async(task_id="i", headers={"a": 1}, priority=3, countdown=9, expires=9).get() == ("i", {"a": 1}, 3)


def test_waiting_inside_an_eager_task_is_refused(app: Celery) -> None:
    app.conf.task_always_eager = True
    inner = app.task(name="inner")(lambda: 1)
    outer = app.task(name="outer")(lambda: inner.delay().get())
    assert isinstance(outer.delay().result, RuntimeError)


def test_eager_results_are_stored_when_asked(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = []
    monkeypatch.setattr(type(app.backend), "store_result", lambda self, *args, **kwargs: stored.append(args))
    app.task(name="a", store_eager_result=True)(lambda: 5).apply(task_id="i")
    app.task(name="b")(lambda: 5).apply()
    app.task(name="c", store_eager_result=True, ignore_result=True)(lambda: 5).apply()
    assert stored == [("i", 5, "SUCCESS")]


def test_nested_eager_tasks_know_their_parents(app: Celery) -> None:
    @app.task(bind=True)
    def inner(self: Any) -> Any:
        return self.request.parent_id, self.request.root_id

    outer = app.task(name="outer")(lambda: inner.apply(task_id="b").get())
    assert outer.apply(task_id="a").get() == ("a", "a")


def test_replace(app: Celery) -> None:
    add = app.task(name="add")(lambda x, y: x + y)

    @app.task(bind=True)
    def f(self: Any, x: int) -> Any:
        return self.replace(add.s(x, 5))

    assert f.apply((1,)).get() == 6
    assert chain(f.s(1), add.s(10)).apply().get() == 16
