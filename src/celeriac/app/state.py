"""The process-wide state of apps: which exist, which is current, what every app gets when it is finalized.

Called by the app, by ``shared_task`` and by users (``current_app``, ``current_task``).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from celeriac.app.proxy import Proxy
from celeriac.client.current import (
    app_or_default,
    forget_app,
    get_current_app,
    get_current_task,
    get_current_worker_task,
    get_default_app,
    set_current_app,
    set_default_app,
)

__all__ = [
    "active_apps",
    "announce_finalized",
    "app_or_default",
    "bugreport",
    "connect_on_app_finalize",
    "current_app",
    "current_task",
    "default_app",
    "deregister_app",
    "get_current_app",
    "get_current_task",
    "get_current_worker_task",
    "register_app",
    "set_current_app",
    "set_default_app",
]

_Finalizer = TypeVar("_Finalizer", bound=Callable[[Any], Any])

_apps: weakref.WeakSet[Any] = weakref.WeakSet()
#: A dict as an ordered set: shared tasks are registered in the order of their declaration.
_finalizers: dict[Callable[[Any], Any], None] = {}

#: The app of the current thread.
current_app: Any = Proxy(get_current_app)
#: The task that runs now; false outside of tasks.
current_task: Any = Proxy(get_current_task)
#: The app given to ``set_default``; false when there is none.
default_app: Any = Proxy(get_default_app)


def connect_on_app_finalize(callback: _Finalizer) -> _Finalizer:
    """Call ``callback(app)`` whenever an app is finalized; usable as a decorator."""
    _finalizers[callback] = None
    return callback


def announce_finalized(app: Any) -> None:
    """Let ``app`` have what every app gets."""
    for callback in list(_finalizers):
        callback(app)


def register_app(app: Any) -> None:
    """Count ``app`` among the active ones, weakly."""
    _apps.add(app)


def deregister_app(app: Any) -> None:
    """``app`` is closed."""
    _apps.discard(app)
    forget_app(app)


def active_apps() -> Iterable[Any]:
    """All apps that are neither closed nor collected."""
    return list(_apps)


def bugreport(app: Any = None) -> str:
    """What a bug report should say about this installation and ``app`` (None: the current one)."""
    return str(app_or_default(app).bugreport())
