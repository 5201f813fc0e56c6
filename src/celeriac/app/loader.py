"""Importing what defines tasks: ``include`` and ``imports``, ``autodiscover_tasks``; and hooks for frameworks.

Called by the app and by workers at their start. Knows no tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

from celeriac import signals
from celeriac.canvas.signatures import as_list
from celeriac.conf.source import import_object
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["AppLoader", "BaseLoader", "find_related_module", "loader_class"]


class BaseLoader:
    """What an app uses to import modules. Methods that do nothing are hooks for subclasses."""

    builtin_modules: frozenset[str] = frozenset()
    worker_initialized = False

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        #: Names of the modules imported for their tasks.
        self.task_modules: set[str] = set()

    def on_task_init(self, task_id: str, task: Any) -> None:
        """A task starts."""

    def on_process_cleanup(self) -> None:
        """A task has ended."""

    def on_worker_init(self) -> None:
        """A worker starts."""

    def on_worker_shutdown(self) -> None:
        """A worker stops."""

    def on_worker_process_init(self) -> None:
        """A child process starts."""

    def init_worker(self) -> None:
        """Import everything a worker needs, once."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        """The worker stops."""
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        """A child process starts."""
        self.on_worker_process_init()

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        """Import a module by name."""
        return import_module(module, package)

    def import_from_cwd(self, module: str) -> ModuleType:
        """Import a module by name, those in the working directory included."""
        import_object(f"{module}:__name__")
        return sys.modules[module]

    def import_task_module(self, module: str) -> Any:
        """Import a module for its tasks. Raises ``ImproperlyConfigured`` naming the setting when there is none."""
        self.task_modules.add(module)
        try:
            return self.import_from_cwd(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there; what it imports is not
            raise ImproperlyConfigured(
                f"cannot import {module!r} from `include` or `imports`: there is no module {error.name!r}; "
                "correct the setting, or start where the module can be imported"
            ) from error

    @property
    def default_modules(self) -> tuple[str, ...]:
        """Names from ``imports`` and ``include``."""
        conf = self.app.conf
        return (*self.builtin_modules, *as_list(conf.imports), *as_list(conf.include))

    def import_default_modules(self) -> list[Any]:
        """Import ``imports`` and ``include`` and run pending autodiscovery (signal ``import_modules``).

        An exception of a receiver is raised: a worker that lacks tasks must not start.
        """
        for _, response in signals.import_modules.send(sender=self.app):
            if isinstance(response, Exception):
                raise response
        return [self.import_task_module(module) for module in self.default_modules]

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str | None = "tasks") -> list[ModuleType]:
        """Import ``package.related_name`` of each package that has it. Returns the modules found."""
        found = [module for name in packages or () if (module := find_related_module(name, related_name)) is not None]
        self.task_modules.update(module.__name__ for module in found)
        return found


class AppLoader(BaseLoader):
    """The loader of apps unless said otherwise."""


def find_related_module(package: str, related_name: str | None) -> ModuleType | None:
    """The module ``related_name`` of a package, or of the package around it when ``package`` names a class in it
    (Django's ``INSTALLED_APPS``); the package itself without ``related_name``; None when it has no such module.

    Raises ``ModuleNotFoundError`` when the package is missing, and whatever the module raises.
    """
    try:
        module = import_module(package)
        if not related_name:
            return module
    except ModuleNotFoundError:
        package, _, _ = package.rpartition(".")
        if not package:
            raise
    name = f"{package}.{related_name}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


_ALIASES = {
    "app": AppLoader,
    "default": AppLoader,
    "celery.loaders.app:AppLoader": AppLoader,
    "celery.loaders.default:Loader": AppLoader,
    "django": AppLoader,
}


def loader_class(loader: Any) -> Any:
    """The loader class that is meant: a class, an alias, or the name of a class."""
    if not isinstance(loader, str):
        return loader
    return _ALIASES.get(loader) or import_object(loader)
