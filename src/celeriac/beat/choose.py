"""Which class ``-S`` and ``beat_scheduler`` mean: by dotted name, by entry point, or one of Celery's names.

Called by the command line and by the service, before anything is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from celeriac.conf.source import import_object
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["GROUPS", "scheduler_class"]

#: Entry-point groups in which packages name their schedulers; the first wins.
GROUPS = ("celeriac.beat_schedulers", "celery.beat_schedulers")
#: Modules that are Celery's here.
_CELERY = ("celery", "kombu")
_NAMES = "start it with `celeriac --celery-names beat …` (docs/how-to/beat-add-ons.md)"


def scheduler_class(name: Any) -> Any:
    """The scheduler class of that name: ``module:Class``, ``module.Class``, the name of an entry point; a class as it
    is. Celery's own names (``celery.beat:PersistentScheduler``) are ours.

    Raises ``ImproperlyConfigured`` where there is none, or what is there is no scheduler for us.
    """
    found = _load(name) if isinstance(name, str) else name
    shown = repr(name) if isinstance(name, str) else getattr(found, "__qualname__", repr(found))
    for base in getattr(found, "__mro__", ()):
        if base.__module__ == "celery.beat":
            raise ImproperlyConfigured(f"beat_scheduler {shown} is built on the installed Celery: {_NAMES}")
    if not callable(found) or not hasattr(found, "tick"):
        raise ImproperlyConfigured(f"beat_scheduler {shown} is no scheduler: it has no tick()")
    return found


def _load(name: str) -> Any:
    for entry in _entry_points():
        if entry.name == name:
            return _imported(entry.load, name)
    module, separator, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    if module == "celery.beat":
        name = f"celeriac.beat{separator}{attribute}"
    elif not separator:
        known = ", ".join(sorted({entry.name for entry in _entry_points()}))
        raise ImproperlyConfigured(
            f"beat_scheduler {name!r}: no installed package has a scheduler of that name"
            f"{f' (there are: {known})' if known else ''}; name a class, as in celeriac.beat:SharedScheduler"
        )
    return _imported(lambda: import_object(name), name)


def _entry_points() -> Iterator[Any]:
    for group in GROUPS:
        yield from entry_points(group=group)


def _imported(load: Any, name: str) -> Any:
    try:
        return load()
    except (ImportError, AttributeError) as error:
        lacking = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and lacking.partition(".")[0] in _CELERY:
            raise ImproperlyConfigured(f"beat_scheduler {name!r} needs the module {lacking!r}: {_NAMES}") from error
        raise ImproperlyConfigured(f"beat_scheduler {name!r} cannot be imported: {error}") from error
