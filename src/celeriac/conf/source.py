"""Where a user's settings are read from: a dict, an object, a class, a module, or the dotted name of one.

Knows names and values, not which names are settings. Called by ``settings.py``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["MISSING", "Source", "import_object", "open_source"]

#: What a lookup returns where there is nothing.
MISSING: Any = object()


class Source:
    """Read access to an object by key. Values are read at each lookup, so that lazy objects stay lazy."""

    __slots__ = ("_mapping", "_object", "origin")

    def __init__(self, target: Any, origin: str) -> None:
        #: How messages name it.
        self.origin = origin
        self._mapping: Mapping[str, Any] | None = target if isinstance(target, Mapping) else None
        self._object = target

    def lookup(self, key: str) -> Any:
        """The value under ``key``, or MISSING."""
        if self._mapping is not None:
            return self._mapping.get(key, MISSING)
        return getattr(self._object, key, MISSING)

    def names(self) -> list[str]:
        """All names that may be settings: no underscore in front."""
        if self._mapping is None:
            return [name for name in dir(self._object) if not name.startswith("_")]
        return [name for name in map(str, self._mapping) if not name.startswith("_")]


def open_source(target: Any, *, silent: bool = False) -> Source | None:
    """``target`` as a Source; a string is imported.

    Returns None when it cannot be imported and ``silent`` is set.

    Raises:
        ImportError: the name cannot be imported, or has no such attribute.
    """
    if not isinstance(target, str):
        kind = type(target).__name__
        return Source(target, f"the configuration {getattr(target, '__name__', f'({kind})')}")
    try:
        return Source(import_object(target), f"the configuration {target!r}")
    except (ImportError, AttributeError) as error:
        if silent:
            return None
        if isinstance(error, ImportError):
            raise
        # An AttributeError that leaves __getattr__ would pass for a missing setting.
        raise ImportError(f"the configuration {target!r} failed while it was imported: {error}") from error


def import_object(path: str) -> Any:
    """The module or attribute of that name: ``package.module``, ``package.module:name`` or ``package.module.name``.

    Modules in the working directory are found, as Celery finds them.

    Raises:
        ImportError: there is none; what a module raises while it is imported passes through.
    """
    module_name, colon, attribute = path.partition(":")
    with _working_directory_first():
        if colon:
            return _attribute(importlib.import_module(module_name), attribute)
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            # Only if the path itself is not a module; one that a module of the user's lacks is his to see.
            parent, dot, attribute = path.rpartition(".")
            if not dot or error.name is None or not f"{path}.".startswith(f"{error.name}."):
                raise
        return _attribute(importlib.import_module(parent), attribute)


def _attribute(target: Any, path: str) -> Any:
    for name in path.split("."):
        found = getattr(target, name, MISSING)
        if found is MISSING:
            owner = getattr(target, "__name__", type(target).__name__)
            raise ImportError(f"{owner!r} has no attribute {name!r}: correct the dotted name")
        target = found
    return target


@contextmanager
def _working_directory_first() -> Iterator[None]:
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        directory = ""
    if not directory or directory in sys.path:
        yield
        return
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        if directory in sys.path:
            sys.path.remove(directory)
