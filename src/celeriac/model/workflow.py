"""What the end of a task means for the workflow around it: the chord it counts for, the steps that will never run.

Pure: walks signatures as they are on the wire (``celery-wire.md`` §3.1). Called by ``plan`` and, for a chord that
failed, by the worker's joiner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from celeriac.model.message import Malformed, Message
from celeriac.model.outcome import Embed

__all__ = ["Abandoned", "Join", "abandoned", "joins_of", "membership"]


class Join(Struct, frozen=True, gc=False):
    """A member's end, for its chord. ``body`` is None when the message could not be read."""

    chord: str
    id: str
    index: int | None
    body: Mapping[str, Any] | None
    state: str
    value: Any


class Abandoned(Struct, frozen=True, gc=False):
    """A task that will never run: ``chord`` is the body of the chord it was a member of, if any."""

    id: str
    group: str | None = None
    index: int | None = None
    chord: Mapping[str, Any] | None = None


def membership(message: Message | Malformed, embed: Embed | None) -> tuple[str, int | None] | None:
    """Group and place of a message that is a chord's member, or may be: of one that could not be read only its headers
    are known."""
    if isinstance(message, Malformed) or (embed is not None and embed.chord is None):
        return None
    group, index = message.headers.get("group"), message.headers.get("group_index")
    if not isinstance(group, str) or not group:
        return None
    return group, index if isinstance(index, int) else None


def joins_of(
    message: Message | Malformed, embed: Embed | None, state: str, value: Any, behind: Iterable[Abandoned] = ()
) -> tuple[Join, ...]:
    """What a terminal end tells chords: its own, and those of the steps ``behind`` it that will never run."""
    member = membership(message, embed)
    joins = [] if member is None else [Join(member[0], message.id, member[1], _chord_of(embed), state, value)]
    joins += [
        Join(step.group, step.id, step.index, step.chord, state, value)
        for step in behind
        if step.chord is not None and step.group
    ]
    return tuple(joins)


def _chord_of(embed: Embed | None) -> Mapping[str, Any] | None:
    return None if embed is None else embed.chord


def abandoned(signatures: Iterable[Any] | None) -> tuple[Abandoned, ...]:
    """Every task in signatures that will never be sent, as far as their ids were fixed. Raises nothing."""
    return tuple(_walk(signatures or (), None))


def _walk(signatures: Iterable[Any], around: Mapping[str, Any] | None) -> Iterator[Abandoned]:
    """``around``: options that the tasks have from the signature they are in."""
    for signature in signatures:
        if not isinstance(signature, Mapping):
            continue
        options = signature.get("options")
        options = options if isinstance(options, Mapping) else {}
        if around and "chord" not in options:
            options = {**options, **around}
        kwargs = signature.get("kwargs")
        kwargs = kwargs if isinstance(kwargs, Mapping) else {}
        kind = signature.get("subtask_type")
        joins = {key: options[key] for key in _JOINS if options.get(key) is not None}
        if kind == "chain":
            steps = _listed(kwargs.get("tasks"))
            yield from _walk(steps[:-1], None)
            yield from _walk(steps[-1:], joins)
        elif kind == "group":
            # Frozen members know their own places.
            yield from _walk(_listed(kwargs.get("tasks")), {"chord": joins["chord"]} if "chord" in joins else None)
        elif kind == "chord":
            yield from _walk(_listed(kwargs.get("header")), None)
            yield from _walk(_listed([kwargs.get("body")]), joins)
        elif isinstance(task_id := options.get("task_id"), str):
            yield _abandoned(task_id, options)
        chain = options.get("chain")
        if chain:
            yield from _walk(_listed(chain), None)


def _abandoned(task_id: str, options: Mapping[str, Any]) -> Abandoned:
    group, index, chord = options.get("group_id"), options.get("group_index"), options.get("chord")
    return Abandoned(
        task_id,
        group if isinstance(group, str) else None,
        index if isinstance(index, int) else None,
        chord if isinstance(chord, Mapping) else None,
    )


_JOINS = ("chord", "group_id", "group_index")


def _listed(value: Any) -> list[Any]:
    """The signatures of a header, which may be a group's, or of a list."""
    if isinstance(value, Mapping):
        kwargs = value.get("kwargs")
        tasks = kwargs.get("tasks") if isinstance(kwargs, Mapping) else None
        return list(tasks) if isinstance(tasks, (list, tuple)) else []
    return [item for item in value if item is not None] if isinstance(value, (list, tuple)) else []
