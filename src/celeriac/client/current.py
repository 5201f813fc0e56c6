"""Which app and which task are current, for everything below the app layer: results, signatures, the sender.

Knows neither Celery nor Task: apps announce themselves, the tracer pushes requests. The request stack lives in a
ContextVar (one per thread, asyncio task and greenlet), as a list linked through ``request._previous``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

__all__ = [
    "app_or_default",
    "forget_app",
    "get_current_app",
    "get_current_task",
    "get_current_worker_task",
    "get_default_app",
    "request_var",
    "set_current_app",
    "set_default_app",
    "set_fallback",
    "worker_request",
]


class _Thread(threading.local):
    app: Any = None


_thread = _Thread()
_default: Any = None
#: The app that was made current last, in whatever thread: what threads without a current app of their own get.
_latest: Any = None
_fallback: Callable[[], Any] | None = None

#: The innermost request of this context, or None.
request_var: ContextVar[Any] = ContextVar("celeriac.request", default=None)


def set_fallback(factory: Callable[[], Any]) -> None:
    """Set what makes an app when none exists and one is asked for."""
    global _fallback
    _fallback = factory


def set_current_app(app: Any) -> None:
    """Make ``app`` current in this thread, and in threads that have none."""
    global _latest
    _thread.app = _latest = app


def set_default_app(app: Any) -> None:
    """Make ``app`` the default of all threads that have no current one."""
    global _default
    _default = app


def get_default_app() -> Any:
    """The app given to ``set_default_app``, or None."""
    return _default


def forget_app(app: Any) -> None:
    """A closed app is no longer current anywhere it can be helped."""
    global _latest, _default
    if _latest is app:
        _latest = None
    if _default is app:
        _default = None
    if _thread.app is app:
        _thread.app = None


def get_current_app() -> Any:
    """The current app of this thread, else the default one, else the one made current last in any thread.

    Celery stops after the second and silently makes an unconfigured app instead, so that ``shared_task`` in a thread of
    a web server sends to nowhere. Without any app, one with default settings is made.
    """
    app = _thread.app or _default or _latest
    if app is not None:
        return app
    if _fallback is None:
        raise RuntimeError("no app: create celeriac.Celery(...) first")
    set_default_app(_fallback())
    return _default


def app_or_default(app: Any = None) -> Any:
    """``app``, or the current one."""
    return app if app is not None else get_current_app()


def get_current_task() -> Any:
    """The task that runs in this context, or None."""
    request = request_var.get()
    return request._task if request is not None else None


def worker_request() -> Any:
    """The request that a worker runs in this context, or None: calls of tasks by tasks are looked through."""
    request = request_var.get()
    while request is not None and request.called_directly:
        request = request._previous
    return request


def get_current_worker_task() -> Any:
    """The task that a worker runs in this context, or None."""
    request = worker_request()
    return request._task if request is not None else None
