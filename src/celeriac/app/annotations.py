"""``task_annotations``: attributes of tasks set by configuration.

Knows attributes, not what they mean. Called when a task is bound to its app.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from celeriac.conf.source import import_object

__all__ = ["annotations_for"]


def annotations_for(task: Any, setting: Any) -> Iterator[tuple[str, Any]]:
    """Attributes that the setting gives to a task: first those under its name, then those under ``"*"``, which win.

    The setting is a mapping ``{name: {attribute: value}}``, an object with ``annotate(task)`` and ``annotate_any()``,
    the dotted name of a class of such objects, or a list of these. The first in the list that has
    something to say counts.
    """
    entries = [_entry(item) for item in (setting if isinstance(setting, (list, tuple)) else (setting,)) if item]
    own: Any = next((found for entry in entries if (found := _own(entry, task))), {})
    everybodys: Any = next((found for entry in entries if (found := _any(entry))), {})
    yield from dict(own).items()
    yield from dict(everybodys).items()


def _entry(item: Any) -> Any:
    return import_object(item)() if isinstance(item, str) else item


def _own(entry: Any, task: Any) -> Any:
    if isinstance(entry, Mapping):
        return entry.get(task.name)
    return entry.annotate(task) if hasattr(entry, "annotate") else None


def _any(entry: Any) -> Any:
    if isinstance(entry, Mapping):
        return entry.get("*")
    return entry.annotate_any() if hasattr(entry, "annotate_any") else None
