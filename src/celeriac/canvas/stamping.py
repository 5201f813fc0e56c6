"""Stamps: headers that mark all tasks of a workflow, whoever sends them. Celery's stamping API.

A stamp is an option of a signature whose name stands in ``stamped_headers``; messages carry it in the headers
``stamps`` and ``stamped_headers``. A visitor decides per signature. Signatures call ``collected`` and ``stamp_links``.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = ["StampingVisitor", "collected", "stamp_links"]

_NAMES = "stamped_headers"


class StampingVisitor(metaclass=ABCMeta):
    """Says which stamps each part of a workflow gets: ``signature.stamp(visitor=…)``.

    Each method returns a dict of stamps to add; the key ``stamped_headers`` in it restricts which of the keys are
    stamps. ``headers`` are the stamps that come from what is around.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """A task's signature."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        """A group, before its tasks."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - for those who want it
        """A group, after its tasks."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        """A chain, before its steps."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - as above
        """A chain, after its steps."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> dict[str, Any]:
        """A chord, before the tasks of its header: as for a group of them."""
        tasks = sig.tasks
        if not hasattr(tasks, "subtask_type"):
            tasks = sig.tasks = sig.TYPES["group"](tasks)
        return self.on_group_start(tasks, **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:
        """A chord, after the tasks of its header."""
        self.on_group_end(sig.tasks, **header)

    def on_chord_body(self, sig: Any, **header: Any) -> dict[str, Any]:
        """A chord, before its body."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> dict[str, Any]:
        """A callback that is linked to a signature."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> dict[str, Any]:
        """An errback that is linked to a signature."""
        return {}


def collected(
    options: Mapping[str, Any], stamps: Mapping[str, Any], visited: Mapping[str, Any] | None, append: bool
) -> dict[str, Any]:
    """All stamps of a signature: those from around, the visitor's, its own; with their names under ``stamped_headers``.

    Of several values for one stamp the one from around counts, then the visitor's, then its own (Celery 5.7 does so,
    whatever its comments say); ``append`` keeps all in a list.
    """
    found = {key: value for key, value in stamps.items() if key != _NAMES}
    names = dict.fromkeys(stamps.get(_NAMES, found))
    if visited:
        named = visited.get(_NAMES)
        names.update(dict.fromkeys(named if named is not None else visited))
        for key, value in visited.items():
            if key != _NAMES:
                found[key] = value if key not in found else _together(found[key], value) if append else found[key]
    own = dict.fromkeys(options.get(_NAMES) or ())
    names.update(own)
    for key in own:
        if key not in options:
            continue
        if key not in found:
            found[key] = options[key]
        elif append:
            found[key] = _together(found[key], options[key])
    return {**found, _NAMES: list(names)}


def _together(first: Any, second: Any) -> list[Any]:
    values = list(first) if isinstance(first, (list, tuple, set)) else [first]
    return [*values, *(second if isinstance(second, (list, tuple, set)) else [second])]


def stamp_links(sig: Any, visitor: StampingVisitor | None, append: bool, stamps: Mapping[str, Any]) -> None:
    """Stamp the callbacks and errbacks of a signature, in place."""
    for option, ask in (("link", "on_callback"), ("link_error", "on_errback")):
        links = sig.options.get(option)
        if not links:
            continue
        linked = sig.options[option] = sig.as_signatures(links)
        for link in linked:
            said = getattr(visitor, ask)(link, **deepcopy(dict(stamps))) if visitor is not None else None
            link.stamp(visitor, append, **collected({}, stamps, said, append))
