"""Gets Django ready where a program imports an app's modules, tells which packages may have tasks, gives tasks
``delay_on_commit``, and keeps database connections fresh in workers.

Every app calls ``fixup``; it does something only where ``DJANGO_SETTINGS_MODULE`` is set, as Celery's does.

A request of Django's begins and ends by closing connections that are broken or older than ``CONN_MAX_AGE``. Tasks have
no requests: without the same around them a child would keep a connection that its server has dropped, and fail each
task from then on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celeriac import signals
from celeriac.app.base import Celery
from celeriac.exceptions import FixupWarning
from celeriac.states import FAILURE, RETRY

if TYPE_CHECKING:
    import asyncio

__all__ = ["DjangoFixup", "fixup"]


class DjangoFixup:
    """``django.setup()`` before tasks are imported; tasks of the installed applications; connections of workers."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._parent = 0
        #: Connections of the parent: whoever closed one would say goodbye on a socket that is not his.
        self._inherited: list[Any] = []
        #: What goes on beside the coroutines.
        self._aside: set[asyncio.Future[None]] = set()
        if app.task_cls == Celery.task_cls:  # nobody asked for another one
            app.task_cls = "celeriac.contrib.django.task:DjangoTask"
        signals.import_modules.connect(self._set_up, sender=app)
        signals.worker_init.connect(self._before_forks)

    def _set_up(self, **_signal: Any) -> None:
        import django  # type: ignore[import-untyped]

        django.setup()

    def autodiscover_tasks(self) -> list[str]:
        """Names of the applications, for ``app.autodiscover_tasks()`` without arguments."""
        from django.apps import apps  # type: ignore[import-untyped]

        return [config.name for config in apps.get_app_configs()]

    # -- connections, in workers of this app alone

    def _before_forks(self, sender: Any = None, **_signal: Any) -> None:
        """Close what importing the application has opened, and look after the connections of tasks from now on."""
        if getattr(sender, "app", None) is not self.app:
            return
        from django.db import Error, connections  # type: ignore[import-untyped]

        for connection in connections.all(initialized_only=True):
            with suppress(Error):
                connection.close()
            if hasattr(connection, "close_pool") and connection.settings_dict["OPTIONS"].get("pool"):
                connection.close_pool()  # its threads would be missing in the children
        self._parent = os.getpid()
        signals.worker_process_init.connect(self._after_fork)
        signals.task_prerun.connect(self._before_task)
        signals.task_postrun.connect(self._after_task)

    def _after_fork(self, **_signal: Any) -> None:
        """Forget connections that a receiver of ``worker_init`` has opened: they belong to the parent."""
        if os.getpid() == self._parent:  # -P solo
            return
        from django.db import connections

        for connection in connections.all(initialized_only=True):
            if connection.connection is not None:
                self._inherited.append(connection.connection)
                connection.connection = None

    def _before_task(self, sender: Any = None, **_signal: Any) -> None:
        if _has_connections(sender):
            from django.db import close_old_connections

            close_old_connections()

    def _after_task(self, sender: Any = None, state: str = "", **_signal: Any) -> None:
        if sender.is_async and state in (FAILURE, RETRY) and not sender.request.is_eager:
            self._mend_aside()
        elif _has_connections(sender):
            from django.core.cache import close_caches  # type: ignore[import-untyped]
            from django.db import close_old_connections

            close_old_connections()
            close_caches()

    def _mend_aside(self) -> None:
        """A coroutine has failed, perhaps because the connection broke that all of them share, on a thread of Django's:
        there it is closed if so. Closing old ones too would disturb those that read from it just now."""
        import asyncio

        from asgiref.sync import sync_to_async

        mending = asyncio.ensure_future(sync_to_async(_close_broken)())
        self._aside.add(mending)
        mending.add_done_callback(self._aside.discard)


def _close_broken() -> None:
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()


def _has_connections(task: Any) -> bool:
    """The task runs on a thread of its own, on which Django's connections are its own: not in place, where they are
    the caller's, and not on an event loop, where Django opens none."""
    return not task.is_async and not task.request.is_eager


def fixup(app: Any) -> DjangoFixup | None:
    """The fixup of an app; None where no settings of Django are named, or Django is not there."""
    settings = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not settings:
        return None
    from importlib.util import find_spec

    if find_spec("django") is None:
        import warnings

        warnings.warn(
            FixupWarning(f"DJANGO_SETTINGS_MODULE is set to {settings!r}, but Django is not installed"), stacklevel=2
        )
        return None
    return DjangoFixup(app)
