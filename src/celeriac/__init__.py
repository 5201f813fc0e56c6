"""Celeriac: a distributed task queue with Celery's API and wire protocol. Loses nothing that it has accepted.

Names are loaded when they are first used, so that ``from celeriac import Celery`` stays fast.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.app.shared import shared_task
    from celeriac.app.state import bugreport, current_app, current_task
    from celeriac.app.task import Task
    from celeriac.canvas import (
        Signature,
        StampingVisitor,
        chain,
        chord,
        chunks,
        group,
        maybe_signature,
        signature,
        subtask,
        xmap,
        xstarmap,
    )
    from celeriac.client.queues import Exchange, Queue
    from celeriac.codec.envelope import new_id as uuid
    from celeriac.codec.failures import register_exception
    from celeriac.codec.secret import Secret

__all__ = [
    "Celery",
    "Exchange",
    "Queue",
    "Secret",
    "Signature",
    "StampingVisitor",
    "Task",
    "bugreport",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "group",
    "maybe_signature",
    "register_exception",
    "shared_task",
    "signature",
    "subtask",
    "uuid",
    "xmap",
    "xstarmap",
]

__version__ = "0.1.0"
VERSION = version_info = (0, 1, 0)

_HOMES = {
    "Celery": ("celeriac.app.base", "Celery"),
    "Exchange": ("celeriac.client.queues", "Exchange"),
    "Queue": ("celeriac.client.queues", "Queue"),
    "Secret": ("celeriac.codec.secret", "Secret"),
    "Signature": ("celeriac.canvas", "Signature"),
    "StampingVisitor": ("celeriac.canvas", "StampingVisitor"),
    "Task": ("celeriac.app.task", "Task"),
    "bugreport": ("celeriac.app.state", "bugreport"),
    "chain": ("celeriac.canvas", "chain"),
    "chord": ("celeriac.canvas", "chord"),
    "chunks": ("celeriac.canvas", "chunks"),
    "current_app": ("celeriac.app.state", "current_app"),
    "current_task": ("celeriac.app.state", "current_task"),
    "group": ("celeriac.canvas", "group"),
    "maybe_signature": ("celeriac.canvas", "maybe_signature"),
    "register_exception": ("celeriac.codec.failures", "register_exception"),
    "shared_task": ("celeriac.app.shared", "shared_task"),
    "signature": ("celeriac.canvas", "signature"),
    "subtask": ("celeriac.canvas", "subtask"),
    "uuid": ("celeriac.codec.envelope", "new_id"),
    "xmap": ("celeriac.canvas", "xmap"),
    "xstarmap": ("celeriac.canvas", "xstarmap"),
}
#: ``import celeriac; celeriac.signals`` works as it does with Celery.
_MODULES = frozenset({"app", "canvas", "contrib", "exceptions", "result", "schedules", "signals", "states", "utils"})


def _import_msgspec() -> None:
    """Import msgspec without typing_extensions, which it takes when installed: 30 ms that bring nothing on our Pythons.

    ``None`` in ``sys.modules`` reads as "not installed"; msgspec then takes the same names from ``typing``.
    """
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    modules["typing_extensions"] = None
    try:
        import msgspec  # noqa: F401
    finally:
        if modules.get("typing_extensions", modules) is None:
            del modules["typing_extensions"]


_import_msgspec()


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOMES.get(name)
    if home is not None:
        value = globals()[name] = getattr(import_module(home[0]), home[1])
        return value
    if name in _MODULES:
        try:
            return import_module(f"celeriac.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"celeriac.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
