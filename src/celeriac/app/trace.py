"""What surrounds the body of a task: request, handlers, signals, and the outcome of it all.

``build_tracer`` makes one specialised closure per task, without the handlers that the task does not override. Add-ons
(Sentry) patch ``build_tracer`` and ``task.run``, so workers get their tracer from ``tracer_for``, which looks the
function up in this module. Decides nothing about what follows (``model/plan.py``) and stores nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any

from celeriac import signals, states
from celeriac.app.einfo import ExceptionInfo
from celeriac.app.loader import BaseLoader
from celeriac.app.replace import Replaced
from celeriac.app.request import Request
from celeriac.app.retry import next_attempt
from celeriac.client.current import request_var
from celeriac.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate
from celeriac.model.outcome import Failure, Ignored, Outcome, Rejected, RetryAsked, Success
from celeriac.model.retry import autoretry

__all__ = ["Tracer", "build_tracer", "run_body", "task_has_custom", "tracer_for"]

_get = request_var.get
_set = request_var.set
_monotonic = time.monotonic
_prerun = signals.task_prerun
_postrun = signals.task_postrun
_success = signals.task_success
#: Where Task's own methods live: whatever stems from elsewhere was overridden.
_TASK_MODULE = "celeriac.app.task"


class Tracer:
    """Runs a task around a request: ``run`` plain functions, ``arun`` those that are ``async def``.

    Calling it as Celery's tracer is called, ``tracer(task_id, args, kwargs, request)``, does the same: that is what the
    wrappers of add-ons call.
    """

    __slots__ = ("arun", "is_async", "run", "task")

    def __init__(
        self,
        task: Any,
        run: Callable[[Request], Outcome] | None = None,
        arun: Callable[[Request], Awaitable[Outcome]] | None = None,
    ) -> None:
        self.task = task
        self.is_async = arun is not None
        self.run: Callable[[Request], Outcome] = run or _no_sync
        self.arun: Callable[[Request], Awaitable[Outcome]] = arun or _no_async

    def __call__(self, task_id: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        if not isinstance(request, Request):
            request = Request(request or {}, id=task_id, args=args, kwargs=kwargs, called_directly=False)
        return self.arun(request) if self.is_async else self.run(request)


def _no_sync(request: Request) -> Outcome:
    raise TypeError("an `async def` task runs by Tracer.arun")


async def _no_async(request: Request) -> Outcome:
    raise TypeError("a task that is no `async def` runs by Tracer.run")


def task_has_custom(task: Any, attr: str) -> bool:
    """The class of ``task``, or whoever patched Task, has its own ``attr``."""
    for cls in type(task).__mro__:
        if attr in cls.__dict__:
            return getattr(cls.__dict__[attr], "__module__", None) != _TASK_MODULE
    return False


def tracer_for(task: Any, *, hostname: str | None = None, eager: bool = False) -> Tracer:
    """The tracer of ``task``, made by ``build_tracer`` as this module has it now."""
    app = task.app
    made = sys.modules[__name__].build_tracer(
        task.name, task, loader=app.loader, hostname=hostname, eager=eager, propagate=False, app=app
    )
    return made if isinstance(made, Tracer) else _wrapped(task, made)


def _wrapped(task: Any, call: Callable[..., Any]) -> Tracer:
    """An add-on put a function around the tracer; called as Celery calls it, it returns what the tracer returns."""
    if task.is_async:

        async def arun(request: Request) -> Outcome:
            return await call(request.id, request.args, request.kwargs, request)  # type: ignore[no-any-return]

        return Tracer(task, arun=arun)

    def run(request: Request) -> Outcome:
        return call(request.id, request.args, request.kwargs, request)  # type: ignore[no-any-return]

    return Tracer(task, run=run)


def build_tracer(
    name: str,
    task: Any,
    loader: Any = None,
    hostname: str | None = None,
    store_errors: bool = True,
    Info: Any = None,  # noqa: N803 - Celery's signature, which add-ons pass on
    eager: bool = False,
    propagate: bool = False,
    app: Any = None,
    **_celery: Any,
) -> Tracer:
    """Make the tracer of ``task``. ``eager``: errors of handlers reach the caller. Add-ons patch this function.

    ``store_errors``, ``Info`` and ``propagate`` are Celery's and mean nothing here: the tracer stores nothing.
    """
    ends = _Ends(task, loader if loader is not None else task.app.loader, eager)
    # A `__call__` of the user's own is called, else `run` without the detour.
    fun = task if task_has_custom(task, "__call__") else task.run
    if task.is_async:
        return Tracer(task, arun=_async_closure(task, fun, ends))
    return Tracer(task, run=_sync_closure(task, fun, ends))


def run_body(fun: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The trampoline: only below this frame a soft time limit may raise."""
    return fun(*args, **kwargs)


def _sync_closure(task: Any, fun: Callable[..., Any], ends: _Ends) -> Callable[[Request], Outcome]:
    before_start, on_init, after = ends.before_start, ends.on_task_init, ends.after
    prerun, postrun, success, plain = _prerun, _postrun, _success, ends.plain

    def run(request: Request) -> Outcome:
        started = _monotonic() if success.receivers else 0.0
        previous = _get()
        request._task = task
        if previous is not None:
            request._previous = previous
        _set(request)
        try:
            if prerun.receivers or on_init is not None:
                ends.starts(request)
            if before_start is not None:
                before_start(request.id, request.args, request.kwargs)
            value = run_body(fun, request.args, request.kwargs)
            if value.__class__ is CoroutineType:
                raise _forgotten_await(task, value)
        except BaseException as exc:  # noqa: BLE001 - the user's code; `failed` raises what must pass
            # The outcome stays out of this frame's variables: with the traceback it would make a cycle.
            return ends.failed(request, exc)
        else:
            if plain and not (success.receivers or postrun.receivers):
                return Success(value)
            return ends.succeeded(request, value, _monotonic() - started if started else 0.0)
        finally:
            _set(previous)
            if after is not None:
                after()

    return run


def _async_closure(task: Any, fun: Callable[..., Any], ends: _Ends) -> Callable[[Request], Awaitable[Outcome]]:
    before_start, on_init, after = ends.before_start, ends.on_task_init, ends.after
    prerun, postrun, success, plain = _prerun, _postrun, _success, ends.plain

    async def arun(request: Request) -> Outcome:
        started = _monotonic() if success.receivers else 0.0
        previous = _get()
        request._task = task
        if previous is not None:
            request._previous = previous
        _set(request)
        try:
            if prerun.receivers or on_init is not None:
                ends.starts(request)
            if before_start is not None:
                before_start(request.id, request.args, request.kwargs)
            value = await fun(*request.args, **request.kwargs)
        except BaseException as exc:
            if _is_being_cancelled(exc):
                raise
            return ends.failed(request, exc)
        else:
            if plain and not (success.receivers or postrun.receivers):
                return Success(value)
            return ends.succeeded(request, value, _monotonic() - started if started else 0.0)
        finally:
            _set(previous)
            if after is not None:
                after()

    return arun


def _is_being_cancelled(exc: BaseException) -> bool:
    """The asyncio task is being cancelled from outside, or its coroutine closed; a task may also raise CancelledError
    by itself, which is a failure like any other."""
    if isinstance(exc, GeneratorExit):
        return True
    import asyncio

    if not isinstance(exc, asyncio.CancelledError):
        return False
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def _forgotten_await(task: Any, value: Any) -> TypeError:
    value.close()
    return TypeError(
        f"task {task.name!r} returned a coroutine: declare it `async def`, or run the coroutine before returning"
    )


class _Ends:
    """What happens before and after the body of one task: its handlers, those of the request, signals."""

    def __init__(self, task: Any, loader: Any, eager: bool) -> None:
        self.task = task
        self.eager = eager

        def own(attr: str) -> Any:
            return getattr(task, attr) if task_has_custom(task, attr) or attr in vars(task) else None

        self.before_start = own("before_start")
        self.on_success = own("on_success")
        self.on_failure = own("on_failure")
        self.on_retry = own("on_retry")
        self.after_return = own("after_return")
        #: No handler has to be called after a success.
        self.plain = self.on_success is None and self.after_return is None and not _has_hook(task, "on_success")
        self.on_task_init = _loader_hook(loader, "on_task_init")
        cleanup = None if eager else _loader_hook(loader, "on_process_cleanup")
        self.after = None if cleanup is None else lambda: self._call(cleanup)

    def starts(self, request: Request) -> None:
        """Tell receivers and the loader that the task starts."""
        if _prerun.receivers:
            args, kwargs = request.args, request.kwargs
            _prerun.send(sender=self.task, task_id=request.id, task=self.task, args=args, kwargs=kwargs)
        if self.on_task_init is not None:
            self.on_task_init(request.id, self.task)

    def succeeded(self, request: Request, value: Any, runtime: float) -> Outcome:
        """Call what a success calls."""
        task_id, args, kwargs = request.id, request.args, request.kwargs
        if self.on_success is not None:
            self._call(self.on_success, value, task_id, args, kwargs)
        if _has_hook(self.task, "on_success"):
            self._call(request.on_success, (False, value, runtime))
        if _success.receivers:
            _success.send(sender=self.task, result=value, runtime=runtime)
        if self.after_return is not None:
            self._call(self.after_return, states.SUCCESS, value, task_id, args, kwargs, None)
        self._over(request, states.SUCCESS, value)
        return Success(value)

    def failed(self, request: Request, exc: BaseException) -> Outcome:
        """The outcome of an attempt that raised ``exc``; raises it again when it is meant for the worker."""
        if isinstance(exc, (WorkerShutdown, WorkerTerminate)):
            self._over(request, states.FAILURE, exc)
            raise exc
        if isinstance(exc, Reject):
            self._over(request, states.REJECTED, exc)
            return Rejected(str(exc.reason), bool(exc.requeue))
        if isinstance(exc, Ignore):
            self._over(request, states.IGNORED, exc)
            return Ignored(isinstance(exc, Replaced))
        if isinstance(exc, Retry):
            return self._retried(request, exc, exc)
        options = self.task.options()
        if options.autoretry_for and isinstance(exc, options.autoretry_for):
            from random import random

            delay = autoretry(options, exc, request.retries, random())
            if delay is not None:
                signature = next_attempt(self.task, request, countdown=delay)
                retry = Retry(exc=exc, when=delay, is_eager=request.is_eager, sig=signature)
                return self._retried(request, retry, exc)
        return self._failure(request, exc)

    def _failure(self, request: Request, exc: BaseException) -> Outcome:
        info = ExceptionInfo(exc)
        task_id, args, kwargs = request.id, request.args, request.kwargs
        if self.on_failure is not None:
            self._call(self.on_failure, exc, task_id, args, kwargs, info)
        if _has_hook(self.task, "on_failure"):
            self._call(request.on_failure, info)
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=self.task,
                task_id=task_id,
                exception=exc,
                args=args,
                kwargs=kwargs,
                traceback=info.tb,
                einfo=info,
            )
        if self.after_return is not None:
            self._call(self.after_return, states.FAILURE, exc, task_id, args, kwargs, info)
        self._over(request, states.FAILURE, exc)
        return Failure(exc, info.traceback)

    def _retried(self, request: Request, retry: Retry, raised: BaseException) -> Outcome:
        """``retry`` is what handlers are told, ``raised`` what carries the traceback."""
        signature = retry.sig
        if signature is None:
            # `raise Retry(...)` by hand: Celery stores the state and sends nothing, so the task is lost.
            when = retry.when
            timed = {"countdown": when} if when is None or isinstance(when, (int, float)) else {"eta": when}
            signature = next_attempt(self.task, request, **timed)
        cause = retry.exc if retry.exc is not None else retry
        info = ExceptionInfo(raised)
        if self.on_retry is not None:
            self._call(self.on_retry, cause, request.id, request.args, request.kwargs, info)
        if _has_hook(self.task, "on_retry"):
            self._call(request.on_retry, info)
        if signals.task_retry.receivers:
            signals.task_retry.send(sender=self.task, request=request, reason=retry, einfo=info)
        self._over(request, states.RETRY, retry)
        return RetryAsked(cause, info.traceback, signature)

    def _over(self, request: Request, state: str, value: Any) -> None:
        if _postrun.receivers:
            _postrun.send(
                sender=self.task,
                task_id=request.id,
                task=self.task,
                args=request.args,
                kwargs=request.kwargs,
                retval=value,
                state=state,
            )

    def _call(self, handler: Callable[..., Any], *args: Any) -> None:
        """A handler's error must not change how the task ended: logged, and raised to eager callers only."""
        try:
            handler(*args)
        except Exception as exc:
            if self.eager:
                raise
            import logging

            name = getattr(handler, "__name__", "handler")
            logging.getLogger("celery.app.trace").exception("Task %s: %s raised: %r", self.task.name, name, exc)


def _loader_hook(loader: Any, name: str) -> Callable[..., Any] | None:
    """The loader's method, unless it is the one that does nothing."""
    method = getattr(loader, name, None)
    return None if method is None or getattr(method, "__func__", method) is vars(BaseLoader)[name] else method


def _has_hook(task: Any, name: str) -> bool:
    """The task's own Request class has the hook ``name``."""
    cls = task.request_class
    return cls is not Request and getattr(cls, name) is not getattr(Request, name)
