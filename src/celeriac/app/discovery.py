"""Finding the app that ``-A`` names.

Imports the user's modules, so only programs call it. Every failure is one line that says what to do next.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from celeriac.app.base import Celery
from celeriac.app.proxy import Proxy
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["find_app"]

#: Submodules in which the app of a package is looked for.
_SUBMODULES = ("celery", "celeriac")
_NAMES = ("app", "celery")


def find_app(name: str) -> Celery:
    """The app that ``name`` means: ``proj``, ``proj.module``, ``proj.module:attribute``, ``proj.module.attribute`` or
    the path of a file.

    In a module it is ``app``, else ``celery``, else its only Celery instance, else that of its submodule ``celery`` or
    ``celeriac``. Modules of the working directory are found.

    Raises ``ImproperlyConfigured``; an error inside the user's modules passes through.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if name.endswith(".py") or os.sep in name:
        name = _module_of_path(name)
    module_name, colon, attribute = name.partition(":")
    if colon:
        return _attribute(_import(module_name), attribute)
    if not module_name or not all(module_name.split(".")):
        raise ImproperlyConfigured(f"-A {name!r} is no module: write -A package.module or -A package.module:attribute")
    parent, dot, last = module_name.rpartition(".")
    if dot and not _exists(module_name) and _exists(parent):
        module = _import(parent)
        if hasattr(module, last):
            return _attribute(module, last)
    return _in_module(_import(module_name))


def _module_of_path(path: str) -> str:
    """The module name of a file or directory; the directory from which it can be imported goes on the path."""
    path, colon, attribute = path.partition(":")
    full = os.path.abspath(path)
    if not os.path.exists(full):
        raise ImproperlyConfigured(f"-A {path!r}: there is no such file; give a module name or an existing path")
    folder, last = os.path.split(full)
    parts = [last.removesuffix(".py")]
    while os.path.exists(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return ".".join(parts) + colon + attribute


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
    except ValueError:  # __main__ and the like have no spec
        return module in sys.modules


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there; what it imports is not
        hint = _similar_module(error.name)
        where = f"started in {os.getcwd()}"
        raise ImproperlyConfigured(
            f"cannot import {name!r}: there is no module {error.name!r} ({where}); "
            + (f"did you mean -A {hint}?" if hint else "start where it can be imported, or set PYTHONPATH")
        ) from None


def _similar_module(name: str) -> str | None:
    from difflib import get_close_matches
    from pkgutil import iter_modules

    parent, dot, last = name.rpartition(".")
    paths = getattr(sys.modules.get(parent), "__path__", None) if dot else [os.getcwd()]
    known = [module.name for module in iter_modules(paths)] if paths else []
    close = get_close_matches(last, known, n=1)
    return parent + dot + close[0] if close else None


def _attribute(module: ModuleType, path: str) -> Celery:
    found: Any = module
    for name in path.split("."):
        if not hasattr(found, name):
            from difflib import get_close_matches

            close = get_close_matches(name, [other for other in vars(found) if not other.startswith("_")], n=1)
            hint = f"did you mean {module.__name__}:{close[0]}?" if close else "name the variable that holds the app"
            raise ImproperlyConfigured(f"module {module.__name__!r} has no attribute {name!r}: {hint}")
        found = getattr(found, name)
    app = _as_app(found)
    if app is None:
        if isinstance(found, ModuleType):
            return _in_module(found)
        _refuse_celerys(module, path)
        kind = type(found).__name__
        raise ImproperlyConfigured(
            f"{module.__name__}:{path} is a {kind}, not an app: name the variable that holds Celery(...)"
        )
    return app


def _as_app(value: Any) -> Celery | None:
    if type(value) is Proxy:
        value = value._get_current_object()
    return value if isinstance(value, Celery) else None


def _refuse_celerys(module: ModuleType, name: str) -> None:
    """Raise where that is an app of the installed Celery."""
    kinds = type(getattr(module, name, None)).__mro__
    if any((kind.__module__, kind.__name__) == ("celery.app.base", "Celery") for kind in kinds):
        raise ImproperlyConfigured(
            f"{module.__name__}:{name} is an app of the installed Celery: write `from celeriac import Celery`, or add "
            "--celery-names (docs/how-to/beat-add-ons.md)"
        )


def _in_module(module: ModuleType) -> Celery:
    for name in _NAMES:
        app = _as_app(vars(module).get(name))
        if app is not None:
            return app
        _refuse_celerys(module, name)
    apps = {id(app): (name, app) for name, value in vars(module).items() if (app := _as_app(value)) is not None}
    if len(apps) == 1:
        return next(iter(apps.values()))[1]
    if apps:
        names = " or ".join(f"-A {module.__name__}:{name}" for name, _ in apps.values())
        raise ImproperlyConfigured(f"module {module.__name__!r} has {len(apps)} apps: say which by {names}")
    for name in _SUBMODULES if hasattr(module, "__path__") else ():
        full = f"{module.__name__}.{name}"
        if _exists(full):
            return _in_module(_import(full))
    raise ImproperlyConfigured(
        f"module {module.__name__!r} has no app: define `app = Celery(...)` there or in "
        f"{module.__name__}.celery, or name it by -A module:attribute"
    )
