"""The part of the app that has tasks: declaring, registering and finding them. A base of ``Celery`` only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from celeriac import signals
from celeriac.app.declare import task_from_function, warn_of_duplicate
from celeriac.app.loader import BaseLoader, loader_class
from celeriac.app.naming import gen_task_name
from celeriac.app.registry import TaskRegistry
from celeriac.app.state import announce_finalized, connect_on_app_finalize
from celeriac.conf.source import import_object

if TYPE_CHECKING:
    from celeriac.app.decorators import AsyncTask, BoundDecorator, Decorator
    from celeriac.app.task import Task

__all__ = ["Declaring"]

P = ParamSpec("P")
R = TypeVar("R")


class Declaring:
    """Tasks of an app."""

    #: Name of the app, and of the module in the names of tasks declared in a script.
    main: str | None
    loader_cls: Any
    task_cls: Any
    autofinalize: bool
    #: Shared and built-in tasks are registered, all tasks are bound.
    finalized: bool = False
    on_after_finalize: signals.Signal

    _tasks: TaskRegistry
    _task_class: Any = None
    _duplicates: set[str]
    _loader: BaseLoader | None = None
    _finalizing: threading.RLock
    _fixups: list[Any]

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, fun: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, *, bind: Literal[True], name: str | None = ..., base: Any = ..., **options: Any
    ) -> BoundDecorator: ...
    @overload
    def task(
        self, *, name: str | None = ..., base: Any = ..., bind: Literal[False] = ..., **options: Any
    ) -> Decorator: ...

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of a function: ``@app.task`` or ``@app.task(name=…, bind=True, max_retries=5, …)``.

        ``bind`` passes the task as first argument, ``base`` is the class to derive from, ``shared=False`` keeps it from
        other apps, ``filter`` gets the task and returns what takes the function's place. Everything else becomes an
        attribute: what Task knows is an option, what it does not know is yours.
        """
        options.pop("lazy", None)
        shared, filtered = options.pop("shared", True), options.pop("filter", None)

        def declare(fun: Callable[..., Any]) -> Any:
            if shared:
                _share(fun, options)
            task = self._task_from_fun(fun, **options)
            return filtered(task) if filtered else task

        if len(args) == 1 and callable(args[0]):
            return declare(args[0])
        if args:
            raise TypeError("@app.task takes a function, or options by name")
        return declare

    def _task_from_fun(
        self, fun: Callable[..., Any], name: str | None = None, base: Any = None, bind: bool = False, **options: Any
    ) -> Any:
        for unwanted in ("shared", "lazy", "filter"):
            options.pop(unwanted, None)
        return task_from_function(self, fun, name=name, base=base, bind=bind, **options)

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a task made of a class, or the class itself. Returns the task; ``options`` become attributes."""
        task = task() if isinstance(task, type) else task
        cls = type(task)
        if not task.name:
            task.name = self.gen_task_name(cls.__name__, cls.__module__)
        for name, value in options.items():
            setattr(task, name, value)
        known = self._tasks.get(task.name)
        if known is not None and known is not task and type(known) is not cls:
            what = "The new one replaced it: calls under this name reach the new one."
            warn_of_duplicate(self, task.name, getattr(known, "_declared", type(known)), cls, what)
        cls._app = self
        self._tasks[task.name] = task
        if self.finalized:
            task.bind(self)
        return task

    def gen_task_name(self, name: str, module: str | None) -> str:
        """The name of a task that is declared as ``name`` in ``module`` and has none of its own."""
        return gen_task_name(self.main, name, module)

    @property
    def tasks(self) -> TaskRegistry:
        """All tasks by name; an unknown one raises ``NotRegistered``. Finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    @property
    def Task(self) -> Any:  # noqa: N802 - Celery's name
        """The base class of this app's tasks: ``class MyTask(app.Task)``."""
        if self._task_class is None:
            self._task_class = self.create_task_cls()
        return self._task_class

    @Task.setter
    def Task(self, cls: Any) -> None:  # noqa: N802
        # Celery makes tasks late, so those declared before this line have the new base too.
        old, self._task_class = self._task_class, cls
        for task in () if old is None or self.finalized else self._tasks.values():
            if type(task).__bases__ == (old,):
                type(task).__bases__ = (cls,)
                type(task).__init__(task)

    def create_task_cls(self) -> Any:
        """A base class of tasks bound to this app, derived from ``task_cls``."""
        base = import_object(self.task_cls) if isinstance(self.task_cls, str) else self.task_cls
        names = {"_app": self, "abstract": True, "__module__": base.__module__, "__doc__": base.__doc__}
        return type("Task", (base,), names)

    def finalize(self, auto: bool = False) -> None:
        """Register shared and built-in tasks, and bind all tasks. Happens by itself when ``tasks`` is first used."""
        with self._finalizing:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("the app is not finalized: call app.finalize() first, or leave autofinalize on")
            self.finalized = True
            announce_finalized(self)
            for task in list(self._tasks.values()):
                task.bind(self)
            self.on_after_finalize.send(sender=self)

    def autodiscover_tasks(self, packages: Any = None, related_name: str | None = "tasks", force: bool = False) -> Any:
        """Import ``package.tasks`` of each package when a worker imports its modules; at once with ``force``.

        ``packages`` is a list, a function that returns one, or None: what fixups know (Django's applications).
        """
        if force:
            return self._autodiscover(packages, related_name)

        def discover(**_signal: Any) -> Any:
            return self._autodiscover(packages, related_name)

        signals.import_modules.connect(discover, weak=False, sender=self)
        return None

    def _autodiscover(self, packages: Any, related_name: str | None) -> Any:
        if callable(packages):
            packages = packages()
        if not packages:
            finders = [fixup for fixup in self._fixups if hasattr(fixup, "autodiscover_tasks")]
            packages = [name for fixup in finders for name in fixup.autodiscover_tasks()]
        return self.loader.autodiscover_tasks(packages, related_name)

    @property
    def loader(self) -> Any:
        """What imports modules for this app."""
        if self._loader is None:
            self._loader = loader_class(self.loader_cls)(app=self)
        return self._loader


def _share(fun: Callable[..., Any], options: dict[str, Any]) -> None:
    """Let apps that are finalized later have the task too."""
    connect_on_app_finalize(lambda app: app._task_from_fun(fun, **options))
