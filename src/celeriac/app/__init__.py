"""The app: Celery and Task, façades over the layers below, and what runs a task in a worker or eagerly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.app.base import Celery as Celery
    from celeriac.app.shared import shared_task as shared_task
    from celeriac.app.state import app_or_default as app_or_default
    from celeriac.app.state import bugreport as bugreport
    from celeriac.app.state import default_app as default_app

__all__ = ["Celery", "app_or_default", "bugreport", "default_app", "shared_task"]

_HOMES = {
    "Celery": "celeriac.app.base",
    "app_or_default": "celeriac.app.state",
    "bugreport": "celeriac.app.state",
    "default_app": "celeriac.app.state",
    "shared_task": "celeriac.app.shared",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
