"""``Service``: Celery's blocking loop around one scheduler, for programs that start beat by themselves.

``celeriac beat`` and ``worker -B`` have a service of their own (``service.py``), with signals and a watchdog.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import cached_property
from typing import Any

from celeriac import signals
from celeriac.beat.choose import scheduler_class
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["Service"]

_log = logging.getLogger("celery.beat")


class Service:
    """Drives the scheduler of an app until ``stop``: ``Service(app).start()``. Also what ``beat_init`` is sent by.

    ``scheduler_cls``: class or name of one, else the setting ``beat_scheduler``.
    """

    scheduler_cls: Any = None

    def __init__(
        self,
        app: Any,
        max_interval: float | None = None,
        schedule_filename: str | os.PathLike[str] | None = None,
        scheduler_cls: Any = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval or app.conf.seconds("beat_max_loop_interval")
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        self.scheduler_cls = scheduler_cls or self.scheduler_cls or app.conf.beat_scheduler
        self._is_shutdown = threading.Event()
        self._is_stopped = threading.Event()

    def get_scheduler(self, lazy: bool = False) -> Any:
        """A new scheduler; ``lazy``: with nothing set up. Raises ``ImproperlyConfigured`` where there is no such."""
        return scheduler_class(self.scheduler_cls)(
            app=self.app, schedule_filename=self.schedule_filename, max_interval=self.max_interval, lazy=lazy
        )

    @cached_property
    def scheduler(self) -> Any:
        """The scheduler, made at the first use."""
        return self.get_scheduler()

    def start(self, embedded_process: bool = False) -> None:
        """Send what is due until ``stop`` is called; then close the scheduler. Raises ``ImproperlyConfigured`` with
        ``beat_enable_remote_control``."""
        if self.app.conf.beat_enable_remote_control:
            raise ImproperlyConfigured(
                "beat_enable_remote_control: `celeriac beat` answers, a Service does not; or ask `celeriac beat status`"
            )
        _log.info("beat: Starting...")
        scheduler = self.scheduler
        signals.beat_init.send(sender=self)
        if embedded_process:
            signals.beat_embedded_init.send(sender=self)
        try:
            while not self._is_shutdown.is_set():
                seconds = scheduler.tick()
                if seconds and seconds > 0:
                    self._is_shutdown.wait(seconds)
                    if scheduler.should_sync():
                        scheduler._do_sync()
        except (KeyboardInterrupt, SystemExit):
            self._is_shutdown.set()
        finally:
            self.sync()

    def sync(self) -> None:
        """Close the scheduler."""
        self.scheduler.close()
        self._is_stopped.set()

    def stop(self, wait: bool = False) -> None:
        """End ``start``, from another thread; ``wait`` until it has."""
        self._is_shutdown.set()
        interrupt = getattr(vars(self).get("scheduler"), "interrupt", None)
        if interrupt is not None:
            interrupt()
        if wait:
            self._is_stopped.wait()
