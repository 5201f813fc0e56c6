"""The tasks of one app, by name."""

from __future__ import annotations

from typing import Any, NoReturn

from celeriac.client.current import get_current_app
from celeriac.exceptions import InvalidTaskError, NotRegistered

__all__ = ["TaskRegistry", "unpickle_task"]


class TaskRegistry(dict[str, Any]):
    """Tasks by name; an unknown name raises ``NotRegistered``, which is a ``KeyError``."""

    NotRegistered = NotRegistered

    def __missing__(self, name: str) -> NoReturn:
        raise NotRegistered(name)

    def register(self, task: Any) -> None:
        """Add a task, or a task class, which is instantiated. Raises ``InvalidTaskError`` when it has no name."""
        if task.name is None:
            raise InvalidTaskError(f"task class {task.__name__!r} has no name: set `name`, or use app.register_task")
        task = task() if isinstance(task, type) else task
        self[task.name] = task

    def unregister(self, name: Any) -> None:
        """Remove a task, by name or itself. Raises ``NotRegistered``."""
        name = getattr(name, "name", name)
        if name not in self:
            raise NotRegistered(name)
        del self[name]


def unpickle_task(name: str, module: str | None = None) -> Any:
    """The current app's task of that name; ``module`` is imported first, in case it is what registers it."""
    if module:
        from importlib import import_module

        import_module(module)
    return get_current_app().tasks[name]
