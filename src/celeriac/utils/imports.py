"""``celery.utils.imports``."""

from __future__ import annotations

from typing import Any

from celeriac.app.naming import gen_task_name as _gen_task_name
from celeriac.conf.source import import_object

__all__ = ["gen_task_name", "import_from_cwd", "instantiate", "qualname", "symbol_by_name"]

import_from_cwd = import_object


def symbol_by_name(name: Any) -> Any:
    """The object of that dotted name; what is no text is returned as it is."""
    return import_object(name) if isinstance(name, str) else name


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the class of that dotted name."""
    return symbol_by_name(name)(*args, **kwargs)


def qualname(obj: Any) -> str:
    """Module and name of a class, function or instance."""
    named = obj if hasattr(obj, "__qualname__") else type(obj)
    return f"{named.__module__}.{named.__qualname__}"


def gen_task_name(app: Any, name: str, module_name: str) -> str:
    """The name of a task declared as ``name`` in a module."""
    return _gen_task_name(app.main, name, module_name)
