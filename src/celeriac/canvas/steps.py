"""How signatures are put one after the other: the rules of ``|``, and what a chain becomes when it is sent.

Groups and chords are told by their ``subtask_type``, so this module is below all of their classes and makes them
through ``Signature.TYPES``. Changes nothing that it is given, but for steps that it has copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from celeriac.canvas.signatures import Signature, as_list, maybe_signature

__all__ = [
    "OWN_OPTIONS",
    "append",
    "fold",
    "is_chain",
    "is_chord",
    "is_empty_group",
    "is_group",
    "link_all",
    "refuse_key",
    "running_order",
    "unrolled",
]

Sig = Signature[Any]

#: Options of a chain that are its own: they do not go to its first step as they are.
OWN_OPTIONS = (
    "chord",
    "group_id",
    "group_index",
    "link",
    "link_error",
    "parent_id",
    "producer",
    "root_id",
    "task_id",
)


def is_group(value: Any) -> bool:
    """It is a group's signature."""
    return isinstance(value, Signature) and value.get("subtask_type") == "group"


def is_chord(value: Any) -> bool:
    """It is a chord's signature."""
    return isinstance(value, Signature) and value.get("subtask_type") == "chord"


def is_chain(value: Any) -> bool:
    """It is a chain's signature."""
    return isinstance(value, Signature) and value.get("subtask_type") == "chain"


def is_empty_group(value: Any) -> bool:
    """It is a group without members: in a chain it is no step at all."""
    return is_group(value) and not value["kwargs"]["tasks"]


def refuse_key(part: Any) -> None:
    """Raise ``ValueError`` for a part of a workflow with an ``idempotency_key``: sent to nobody, it would end it."""
    if isinstance(part, Signature) and "idempotency_key" in part["options"]:
        raise ValueError(
            f"task {part['task']}: idempotency_key cannot be used within a chain, group, chord or callback, where "
            "others wait for this very task: give it to the task that sends the workflow"
        )


def unrolled(task: Any, app: Any = None) -> Any:
    """A group of one is that one."""
    if is_group(task) and len(task["kwargs"]["tasks"]) == 1:
        return maybe_signature(task["kwargs"]["tasks"][0], app=app)
    return task


def fold(tasks: Iterable[Any], app: Any = None) -> Sig | list[Sig]:
    """What ``tasks[0] | tasks[1] | …`` is: the steps of a chain, or the one signature that it is instead.

    A group with a task behind it becomes a chord, what is behind a chord goes into its body. All but the last task are
    copied. Raises ``TypeError`` for what is no signature.
    """
    given = [_signature(task, app) for task in tasks]
    there = [task for task in given if not is_empty_group(task)] or given[:1]
    if there and is_group(first := unrolled(there[0], app)):
        if len(there) == 1:
            return cast(Sig, first)
        one = [cast(Sig, first | there[1]).clone()]
        for position, task in enumerate(there[2:], 3):
            append(one, task if position == len(there) else task.clone(), app)
        return one[0] if len(one) == 1 else one
    steps: list[Sig] = []
    for position, task in enumerate(there):
        append(steps, task if position == len(there) - 1 else task.clone(), app)
    return steps


def append(steps: list[Sig], task: Sig, app: Any = None) -> None:
    """Put ``task`` behind ``steps``, which the caller has copied: the rules of ``chain | task``."""
    if is_empty_group(task):
        return
    task = unrolled(task, app)
    if is_chain(task):
        for step in task.steps():
            append(steps, step, app)
        return
    last = steps[-1] if steps else None
    if is_group(last) and not is_group(task):
        steps[-1] = Signature.TYPES["chord"](last, task, app=app)
    elif last is not None and is_chord(last) and not is_chord(task):
        last["kwargs"]["body"] = _behind(last["kwargs"]["body"], task, app)
    else:
        steps.append(task)


def _behind(body: Sig, task: Sig, app: Any) -> Sig:
    """``body | task`` for a body that may be changed: copied for each of its steps, a long one would be quadratic."""
    if is_chain(body) and not body.options:
        append(body["kwargs"]["tasks"], task, app)
        return body
    return cast(Sig, body | task)


def _signature(task: Any, app: Any) -> Sig:
    found = maybe_signature(task, app=app)
    if not isinstance(found, Signature):
        raise TypeError(f"a chain is made of signatures, such as task.s(2), not of {type(task).__name__}")
    if found["task"] == "celery.chunks":
        return cast("Sig", Signature.TYPES["chunks"].from_dict(found, app=app).group())  # type: ignore[attr-defined]
    return found


def running_order(tasks: Sequence[Any], app: Any = None) -> list[Sig]:
    """What is sent one after the other when a chain of ``tasks`` is sent: copies, all ready to be changed.

    Chains among them give their steps; empty groups are left out, unless there is nothing else; a group with a step
    behind it becomes a chord; the tail of a chord's body becomes steps of its own, for each task of a header carries a
    copy of the body.
    """
    flat = list(_flat(tasks, app))
    steps = [task for task in flat if not is_empty_group(task)] or flat[:1]
    order: list[Sig] = []
    for task in reversed(steps):
        if is_group(task) and order:
            order[-1] = Signature.TYPES["chord"](task, order[-1], app=app)
            continue
        if is_chord(task) and order and (body := _awaited(task["kwargs"]["body"], order[-1], app)) is not None:
            task["kwargs"]["body"] = body
            order.pop()
        order.append(task)
    return order[::-1]


def _awaited(end: Any, task: Sig, app: Any) -> Sig | None:
    """``end`` with ``task`` behind it, where it ends in a group, however deep: each member would send it else. None
    where it ends in one task."""
    if is_group(end):
        return Signature.TYPES["chord"](end, task, app=app)
    part = "body" if is_chord(end) else "tasks" if is_chain(end) and end["kwargs"]["tasks"] else None
    if part is None:
        return None
    inner = end["kwargs"][part]
    last = _awaited(maybe_signature(inner if part == "body" else inner[-1], app=app), task, app)
    if last is None:
        return None
    copy = end.clone()
    copy["kwargs"][part] = last if part == "body" else [*copy["kwargs"][part][:-1], last]
    return cast(Sig, copy)


def _flat(tasks: Iterable[Any], app: Any) -> Iterator[Sig]:
    for given in tasks:
        task = unrolled(_signature(given, app), app)
        if is_chain(task):
            yield from _flat(task.steps(), app)
        elif is_chord(task):
            yield from _split(task.clone(), app)
        else:
            yield task.clone()


def _split(chord: Sig, app: Any) -> Iterator[Sig]:
    """A chord with the first step of its body, then the others."""
    body = chord["kwargs"]["body"]
    if not is_chain(body):
        yield chord
        return
    first, *rest = running_order([body], app) or [body]
    own = {key: value for key, value in body.options.items() if key not in OWN_OPTIONS}
    if own:
        first = first.clone(**own)
    chord["kwargs"]["body"] = first
    yield chord
    yield from rest


def link_all(steps: Sequence[Sig], link: Any, link_error: Any) -> None:
    """Callbacks go to the last step, errbacks to all."""
    for callback in as_list(link):
        steps[-1].link(callback)
    for errback in as_list(link_error):
        for step in steps:
            step.link_error(errback)
