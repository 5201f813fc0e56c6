"""Celery: the app. A façade over settings (``configuring``), tasks (``declaring``), messages and results (``sending``).

Made by users, read by everything above this layer. Loads its configuration, opens connections and finalizes itself at
the first need only, so that importing a module with an app in it costs next to nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Self

from celeriac import signals
from celeriac.app import builtins as _builtins  # noqa: F401 - registers the built-in tasks
from celeriac.app.configuring import Configuring
from celeriac.app.declaring import Declaring
from celeriac.app.registry import TaskRegistry
from celeriac.app.sending import Sending
from celeriac.app.state import deregister_app, register_app
from celeriac.client.current import get_current_app, set_current_app, set_default_app, set_fallback
from celeriac.conf.settings import Settings
from celeriac.conf.source import import_object
from celeriac.schedules.ambient import set_current_app_getter

__all__ = ["Celery"]


class Celery(Configuring, Declaring, Sending):
    """An application: its tasks, its settings, and how to send, run and control them.

    Args:
        main: name of the app, and of the module in the names of tasks declared in a script.
        loader: class, or dotted name of one, that imports what defines tasks (default ``AppLoader``).
        backend: URL of the result backend (``result_backend``).
        set_as_current: make it the current app of this thread.
        tasks: registry to use.
        broker: URL of the broker (``broker_url``). Without it a SQLite file beside the module has messages and results.
        include: modules that workers import (``include``).
        changes: settings, by name.
        config_source: object, or dotted name of one, to read settings from.
        fixups: callables, or dotted names of such, called with the app.
        task_cls: base class of tasks, or its dotted name.
        autofinalize: off: using ``tasks`` before ``finalize()`` raises RuntimeError.
        namespace: prefix of settings in ``config_source``.
        strict_typing: check arguments against the signature of a task when it is sent.
        **kwargs: more settings, by name.
    """

    #: Dotted names of fixups that every app has.
    builtin_fixups: Iterable[Any] = ("celeriac.contrib.django.fixup:fixup",)
    loader_cls: Any = "celeriac.app.loader:AppLoader"
    task_cls: Any = "celeriac.app.task:Task"
    #: Called with the app before its configuration is read: a Signal, unless a subclass has a method of that name.
    on_configure: Any = None

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: Any = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Any = None,
        broker: Any = None,
        include: Any = None,
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        fixups: Iterable[Any] | None = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **kwargs: Any,
    ) -> None:
        self.main = main
        self.loader_cls = loader or os.environ.get("CELERY_LOADER") or self.loader_cls
        self.task_cls = task_cls or self.task_cls
        self.set_as_current = set_as_current
        self.autofinalize = autofinalize
        self.namespace = namespace
        self.strict_typing = strict_typing
        self.fixups = list(self.builtin_fixups if fixups is None else fixups)
        #: Options that programs add to commands: ``user_options["worker"].add(option)``.
        self.user_options: defaultdict[str, set[Any]] = defaultdict(set)
        #: Bootsteps that programs add to workers.
        self.steps: defaultdict[str, set[Any]] = defaultdict(set)
        self._finalizing = threading.RLock()
        self._making = threading.RLock()
        self._tasks = tasks if isinstance(tasks, TaskRegistry) else TaskRegistry(tasks or {})
        self._duplicates = set()
        self._periodic = []
        self._control = control if control is not None and not isinstance(control, (str, type)) else None
        self._log: Any = log if log is not None and not isinstance(log, (str, type)) else None
        self._config_source = config_source
        self._config_source_silent = config_source_silent
        self._file = _callers_file()
        self._make_signals()
        given = {"broker_url": broker, "result_backend": backend, "include": include, **kwargs}
        self.conf = Settings(
            {**(changes or {}), **{name: value for name, value in given.items() if value is not None}},
            namespace=namespace,
            source=config_source,
            silent=config_source_silent,
            before_load=self._before_configure,
            after_load=self._after_configure,
        )
        if set_as_current:
            self.set_current()
        self._fixups = [(import_object(fixup) if isinstance(fixup, str) else fixup)(self) for fixup in self.fixups]
        self.on_init()
        register_app(self)

    def _make_signals(self) -> None:
        if self.on_configure is None:
            self.on_configure = signals.Signal(name="app.on_configure")
        self.on_after_configure = signals.Signal(name="app.on_after_configure", providing_args=("source",))
        self.on_after_finalize = signals.Signal(name="app.on_after_finalize")
        self.on_after_fork = signals.Signal(name="app.on_after_fork")

    def on_init(self) -> None:
        """For subclasses: the app was made."""

    # ------------------------------------------------------------ current and closed

    def set_current(self) -> None:
        """Make it the current app of this thread, and of threads that have none."""
        set_current_app(self)

    def set_default(self) -> None:
        """Make it the default of threads without a current app."""
        set_default_app(self)

    def close(self) -> None:
        """Give connections back and be current no more; needed only for apps that come and go."""
        parts = (self._sender, self._backend, self._task_steps, self._control, self._dead_letters, self._periodic_desk)
        for part in parts:
            close = getattr(part, "close", None)
            if close is not None:
                close()
        deregister_app(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------ programs

    def start(self, argv: list[str] | None = None) -> Any:
        """Run the command line ``celeriac`` for this app with ``argv`` (default: that of the process)."""
        return import_object("celeriac.cli:start")(self, sys.argv[1:] if argv is None else argv)

    def worker_main(self, argv: list[str] | None = None) -> Any:
        """``start`` for the command ``worker``, which ``argv`` has to name."""
        argv = sys.argv[1:] if argv is None else argv
        if "worker" not in argv:
            raise ValueError("worker_main needs the command 'worker' in argv; use app.start() for other commands")
        return self.start(argv)

    def bugreport(self) -> str:
        """What a bug report should say about this installation and app."""
        from celeriac.app.bugreport import bugreport

        return bugreport(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'}:{id(self):#x}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__reduce_keys__())

    def __reduce_keys__(self) -> dict[str, Any]:
        """Arguments that make an app like this one elsewhere."""
        return {
            "main": self.main,
            "changes": dict(self.conf.changes),
            "loader": self.loader_cls,
            "fixups": self.fixups,
            "config_source": self._config_source,
            "config_source_silent": self._config_source_silent,
            "task_cls": self.task_cls,
            "namespace": self.namespace,
            "strict_typing": self.strict_typing,
        }


def _rebuild(cls: type[Celery], arguments: dict[str, Any]) -> Celery:
    return cls(**arguments)


def _callers_file() -> str | None:
    """The file of the module that makes the app; None when it is one of ours, or has none."""
    frame = sys._getframe(2)
    while frame.f_code.co_name == "__init__" and frame.f_back is not None:
        frame = frame.f_back
    if str(frame.f_globals.get("__name__")).startswith("celeriac."):
        return None
    file = frame.f_globals.get("__file__")
    return file if isinstance(file, str) else None


def _default_app() -> Celery:
    return Celery("default", fixups=(), set_as_current=False)


set_fallback(_default_app)
set_current_app_getter(get_current_app)
