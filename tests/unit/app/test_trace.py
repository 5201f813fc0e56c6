from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from celeriac import Celery, signals
from celeriac.app import trace
from celeriac.app.request import Request
from celeriac.app.trace import Tracer, tracer_for
from celeriac.exceptions import Ignore, Reject, Retry, WorkerShutdown
from celeriac.model.message import Message
from celeriac.model.outcome import Failure, Ignored, Outcome, Rejected, RetryAsked, Success


def request_for(task: Any, *args: Any, retries: int = 0, **kwargs: Any) -> Request:
    message = Message(
        id="i", task=task.name, headers={"task": task.name, "id": "i"}, body=b"", queue="q", retries=retries
    )
    request: Request = task.request_class.from_message(message, list(args), kwargs)
    return request


def run(task: Any, *args: Any, retries: int = 0, **kwargs: Any) -> Outcome:
    return tracer_for(task).run(request_for(task, *args, retries=retries, **kwargs))


@contextmanager
def listening(*names: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    heard: list[tuple[str, dict[str, Any]]] = []
    receivers = []
    for name in names:

        def receiver(name: str = name, **kwargs: Any) -> None:
            heard.append((name, kwargs))

        getattr(signals, name).connect(receiver, weak=False)
        receivers.append((name, receiver))
    yield heard
    for name, receiver in receivers:
        getattr(signals, name).disconnect(receiver)


def test_success(app: Celery) -> None:
    assert run(app.task(name="n")(lambda x, y=1: x + y), 2, y=3) == Success(5)


def test_failure_has_a_traceback_of_the_task_only(app: Celery) -> None:
    @app.task
    def f() -> None:
        raise ValueError("bad")

    outcome = run(f)
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.exc, ValueError)
    assert "in f" in outcome.traceback
    assert outcome.traceback.endswith("ValueError: bad\n")
    assert "run_body" not in outcome.traceback


@pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_any_exception_is_a_failure(app: Celery, exc: BaseException) -> None:
    @app.task
    def f() -> None:
        raise exc

    outcome = run(f)
    assert isinstance(outcome, Failure)
    assert outcome.exc is exc


def test_worker_shutdown_passes_through(app: Celery) -> None:
    @app.task
    def f() -> None:
        raise WorkerShutdown(0)

    with pytest.raises(WorkerShutdown):
        run(f)
    assert app.current_task is None


def test_ignore_and_reject(app: Celery) -> None:
    @app.task
    def f(exc: BaseException) -> None:
        raise exc

    assert run(f, Ignore()) == Ignored()
    assert run(f, Reject("why", requeue=True)) == Rejected("why", True)


def test_handlers_and_signals_of_a_success(app: Celery) -> None:
    calls: list[Any] = []

    class Base(app.Task):
        def before_start(self, *args: Any) -> None:
            calls.append(("before_start", *args))

        def on_success(self, *args: Any) -> None:
            calls.append(("on_success", *args))

        def after_return(self, *args: Any) -> None:
            calls.append(("after_return", *args))

        def on_failure(self, *args: Any) -> None:
            calls.append("never")

    f = app.task(name="n", base=Base)(lambda x: x)
    with listening("task_prerun", "task_success", "task_postrun") as heard:
        assert run(f, 1) == Success(1)
    assert calls == [
        ("before_start", "i", [1], {}),
        ("on_success", 1, "i", [1], {}),
        ("after_return", "SUCCESS", 1, "i", [1], {}, None),
    ]
    assert [name for name, _ in heard] == ["task_prerun", "task_success", "task_postrun"]
    prerun, success, postrun = (kwargs for _, kwargs in heard)
    assert (prerun["sender"], prerun["task"], prerun["task_id"], prerun["args"], prerun["kwargs"]) == (
        f,
        f,
        "i",
        [1],
        {},
    )
    assert success["result"] == 1
    assert success["runtime"] > 0
    assert (postrun["retval"], postrun["state"]) == (1, "SUCCESS")


def test_handlers_and_signals_of_a_failure(app: Celery) -> None:
    calls: list[Any] = []

    @app.task(
        on_failure=lambda self, exc, task_id, args, kwargs, einfo: calls.append((exc, einfo)),
        after_return=lambda self, *args: calls.append(args[0]),
    )
    def f() -> None:
        raise KeyError("k")

    with listening("task_failure", "task_postrun") as heard:
        outcome = run(f)
    (exc, einfo), status = calls
    assert isinstance(outcome, Failure)
    assert exc is outcome.exc is einfo.exception
    assert einfo.traceback == outcome.traceback == str(einfo)
    assert einfo.type is KeyError
    assert status == "FAILURE"
    failure, postrun = (kwargs for _, kwargs in heard)
    assert failure["exception"] is exc
    assert failure["traceback"] is exc.__traceback__
    assert failure["einfo"] is not None
    assert postrun["state"] == "FAILURE"


def test_receivers_that_connect_later_are_heard(app: Celery) -> None:
    tracer = tracer_for(app.task(name="n")(lambda: 1))
    with listening("task_postrun") as heard:
        tracer.run(request_for(tracer.task))
    assert len(heard) == 1


def test_an_error_in_a_handler_does_not_change_the_outcome(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    def broken(self: Any, *args: Any) -> None:
        raise RuntimeError("handler")

    assert run(app.task(name="n", on_success=broken)(lambda: 1)) == Success(1)
    assert "on_success" not in caplog.text or "handler" in caplog.text
    outcome = run(app.task(name="m", on_failure=broken)(lambda: 1 / 0))
    assert isinstance(outcome, Failure)
    assert isinstance(outcome.exc, ZeroDivisionError)
    assert "RuntimeError('handler')" in caplog.text


def test_autoretry_asks_for_a_retry(app: Celery) -> None:
    retried: list[Any] = []

    @app.task(
        autoretry_for=(KeyError,),
        retry_kwargs={"max_retries": 1, "countdown": 7},
        on_retry=lambda self, exc, *args: retried.append(exc),
        on_failure=lambda self, exc, *args: retried.append("failed"),
    )
    def f(x: int) -> None:
        raise KeyError("k")

    with listening("task_retry") as heard:
        outcome = run(f, 1)
    assert isinstance(outcome, RetryAsked)
    assert isinstance(outcome.exc, KeyError)
    assert "KeyError" in outcome.traceback
    options = outcome.send.options
    assert (options["countdown"], options["retries"], options["task_id"], options["queue"]) == (7, 1, "i", "q")
    assert list(outcome.send.args) == [1]
    assert isinstance(heard[0][1]["reason"], Retry)
    assert isinstance(run(f, 1, retries=1), Failure)
    assert [str(item) for item in retried] == ["'k'", "failed"]


def test_retry_raised_by_hand_is_not_lost(app: Celery) -> None:
    @app.task
    def f() -> None:
        raise Retry(when=5)

    outcome = run(f)
    assert isinstance(outcome, RetryAsked)
    assert (outcome.send.options["countdown"], outcome.send.id) == (5, "i")


def test_coroutine(app: Celery) -> None:
    @app.task
    async def f(x: int) -> int:
        await asyncio.sleep(0)
        if x < 0:
            raise ValueError(x)
        return x

    tracer = tracer_for(f)
    assert tracer.is_async
    assert asyncio.run(tracer.arun(request_for(f, 3))) == Success(3)  # type: ignore[arg-type]
    outcome = asyncio.run(tracer.arun(request_for(f, -1)))  # type: ignore[arg-type]
    assert isinstance(outcome, Failure)
    assert "in f" in outcome.traceback
    with pytest.raises(TypeError, match="arun"):
        tracer.run(request_for(f, 3))


def test_cancelling_passes_but_a_cancelled_error_of_its_own_is_a_failure(app: Celery) -> None:
    @app.task
    async def f(own: bool) -> None:
        if own:
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    async def main() -> Outcome:
        tracer = tracer_for(f)
        task = asyncio.ensure_future(tracer.arun(request_for(f, False)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await tracer.arun(request_for(f, True))

    assert isinstance(asyncio.run(main()), Failure)


def test_a_coroutine_returned_by_a_plain_function_says_so(app: Celery) -> None:
    async def inner() -> None: ...

    outcome = run(app.task(name="n")(lambda: inner()))
    assert isinstance(outcome, Failure)
    assert "declare it `async def`" in str(outcome.exc)


def test_own_call_is_used_else_run(app: Celery) -> None:
    class Base(app.Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "called", self.run(*args, **kwargs)

    assert run(app.task(name="n", base=Base)(lambda: 1)) == Success(("called", 1))
    frames: list[str] = []
    run(app.task(name="m")(lambda: frames.extend(frame.function for frame in inspect.stack()[1:3])))
    assert frames == ["run_body", "run"]


def test_patched_build_tracer_and_run_as_sentry_does(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = trace.build_tracer, []

    def patched(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        body = task.run
        task.run = lambda *a, **k: ("patched", body(*a, **k))
        tracer = original(name, task, *args, **kwargs)

        def wrapper(*call: Any, **options: Any) -> Any:
            calls.append((call[0], call[1], call[3].get("headers"), call[3].get("id")))
            return tracer(*call, **options)

        return wrapper

    monkeypatch.setattr(trace, "build_tracer", patched)
    task = app.task(name="n")(lambda x: x)
    assert run(task, 2) == Success(("patched", 2))
    assert calls == [("i", [2], None, "i")]


def test_tracer_called_as_celery_does(app: Celery) -> None:
    tracer = trace.build_tracer("n", app.task(name="n", bind=True)(lambda self, x: (self.request.id, x)), app=app)
    assert isinstance(tracer, Tracer)
    assert tracer("i", (3,), {}, {"retries": 1}) == Success(("i", 3))


def test_loader_hooks(app: Celery) -> None:
    from celeriac.app.loader import AppLoader

    seen: list[Any] = []

    class Loader(AppLoader):
        def on_task_init(self, task_id: str, task: Any) -> None:
            seen.append(("init", task_id))

        def on_process_cleanup(self) -> None:
            seen.append("cleanup")

    with Celery(loader=Loader, set_as_current=False) as other:
        run(other.task(name="n")(lambda: 1))
    assert seen == [("init", "i"), "cleanup"]


def test_failures_leave_no_cycles(app: Celery) -> None:
    class Big:
        pass

    @app.task
    def f() -> None:
        big = Big()
        alive.append(weakref.ref(big))
        raise ValueError

    alive: list[Any] = []
    tracer = tracer_for(f)
    gc.collect()
    gc.disable()
    try:
        tracer.run(request_for(f))
        assert alive[0]() is None, sys.getrefcount(alive[0]())
    finally:
        gc.enable()
