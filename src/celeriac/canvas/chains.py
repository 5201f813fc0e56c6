"""Tasks one after the other, each called with the result of the one before.

The first step is sent with the others, in reverse order, in its message (``celery-wire.md`` §3.1); who finishes a step
pops the last of them. A chain has the id of its last step. How steps are put together: ``steps.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Self, cast

from celeriac.canvas.signatures import Signature, maybe_signature
from celeriac.canvas.stamping import StampingVisitor, collected, stamp_links
from celeriac.canvas.steps import (
    OWN_OPTIONS,
    append,
    fold,
    is_empty_group,
    is_group,
    link_all,
    refuse_key,
    running_order,
    unrolled,
)
from celeriac.result import EagerResult, allow_join_result

__all__ = ["_chain", "chain"]


@Signature.register_type()
class chain(Signature[Any]):  # noqa: N801 - Celery's name
    """``chain(a.s(1), b.s(2))``, or ``a.s(1) | b.s(2)``: ``b`` is called with the result of ``a`` in front.

    Takes signatures, or one iterable of them. Groups among them wait for each other: ``chain(group(…), c.s())`` is a
    chord. ``link`` is called after the last step, ``link_error`` on a failure of any. Calling ``chain(...)()`` sends
    it. With options the steps stay as they are until it is sent.
    """

    #: Steps that ``__new__`` has put together for ``__init__``.
    _folded: list[Signature[Any]] | None = None

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        """A chain, or what the steps are instead."""
        folded: Any = None
        if not options and (len(tasks) > 1 or (tasks and not isinstance(tasks[0], dict))):
            folded = fold(_given(tasks))
            if isinstance(folded, Signature):
                return folded
        made = super().__new__(cls)
        made._folded = folded
        return made

    def __init__(self, *tasks: Any, app: Any = None, **options: Any) -> None:
        steps = self._folded
        if steps is None:
            steps = [maybe_signature(task, app=app) for task in _given(tasks)]
        self._folded = None
        super().__init__("celery.chain", (), {"tasks": steps}, options, subtask_type="chain", app=app)
        self._type = None

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """A chain from what was on the wire; keys it does not know are kept."""
        made = chain(list(d["kwargs"]["tasks"]), app=app)
        made.update({**d, "kwargs": {**d["kwargs"], "tasks": made.tasks}})
        return made

    @property
    def tasks(self) -> list[Signature[Any]]:
        """The steps, in running order."""
        return cast("list[Signature[Any]]", self["kwargs"]["tasks"])

    @tasks.setter
    def tasks(self, value: list[Signature[Any]]) -> None:
        self["kwargs"]["tasks"] = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it. None when it has no steps."""
        return self.apply_async(args, kwargs) if self.tasks else None

    def steps(self) -> list[Signature[Any]]:
        """Copies of the steps, with the chain's own callbacks on them, to go into another chain."""
        steps = [step.clone() for step in self.tasks]
        if steps:
            link_all(steps, self.options.get("link"), self.options.get("link_error"))
        return steps

    unchain_tasks = steps

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        if is_empty_group(other):
            return self
        if not self.tasks and is_group(unrolled(other)):
            return other
        steps = self.steps()
        append(steps, other, self._app)
        return chain(steps, app=self._app)

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Self:
        """A copy, steps included."""
        copy = super().clone(args, kwargs, **options)
        copy.tasks = [maybe_signature(step, app=self._app, clone=True) for step in copy.tasks]
        return copy

    def _parts(self) -> Iterable[Signature[Any]]:
        return self.tasks

    def leaves(self) -> int:
        """See ``Signature.leaves``: the last step that is one counts."""
        return next((count for step in reversed(self.tasks) if (count := maybe_signature(step).leaves())), 0)

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Stamp its steps and what is linked to it."""
        said = visitor.on_chain_start(self, **headers) if visitor is not None else None
        stamps = collected(self.options, headers, said, append_stamps)
        stamp_links(self, visitor, append_stamps, stamps)
        for step in self.tasks:
            step.stamp(visitor, append_stamps, **stamps)
        if visitor is not None:
            visitor.on_chain_end(self, **stamps)
        return self

    # ------------------------------------------------------------ sending

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Send the first step, with ``args`` in front of its own and the others in tow.

        ``options`` are the first step's, but ``link``, ``link_error``, ``task_id`` … are the chain's. Returns the
        result of the last step, whose ``parent`` is the one before. With ``task_always_eager`` all steps run here.
        """
        if self.app.conf.task_always_eager:
            with allow_join_result():
                return self.apply(args, kwargs, **options)
        merged = {**self.options, **options} if options else dict(self.options)
        own = {name: merged.pop(name, None) for name in OWN_OPTIONS}
        steps = running_order(self.tasks, self._app)
        if not steps:
            raise ValueError("a chain without steps cannot be sent")
        partial = (*args, *self.args) if args and not self.immutable else self.args
        if partial or kwargs:
            steps[0] = steps[0].clone(partial, kwargs or None)
        link_all(steps, own["link"], own["link_error"])
        results = self._freeze_steps(steps, own)
        first, rest = steps[0], steps[:0:-1]
        following = merged.pop("chain", None)
        if rest or following:
            # A chain within a chain's message: what follows it stays behind its own steps.
            merged["chain"] = [*(following or ()), *rest]
        if own["producer"] is not None:
            merged["producer"] = own["producer"]
        sent = first.apply_async(**merged)
        return results[-1] if rest else sent

    def _freeze_steps(self, steps: list[Signature[Any]], own: Mapping[str, Any]) -> list[Any]:
        """Give the steps their ids; returns their results, each the parent of the next."""
        for step in steps if len(steps) > 1 else ():
            refuse_key(step)
        results = [step.freeze(root_id=own.get("root_id")) for step in steps[:-1]]
        results.append(
            steps[-1].freeze(
                own.get("task_id"),
                group_id=own.get("group_id"),
                chord=own.get("chord"),
                root_id=own.get("root_id"),
                group_index=own.get("group_index"),
            )
        )
        if own.get("parent_id"):
            steps[0].set(parent_id=own["parent_id"])
        for before, after in pairwise(results):
            # The result of a chord has that of its header for a parent already.
            while after.parent is not None:
                after = after.parent
            after.parent = before
        return results

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give all steps their ids. Returns the result of the last."""
        self.tasks = running_order(self.tasks, self._app)
        if not self.tasks:
            raise ValueError("a chain without steps cannot be frozen")
        own = {"task_id": _id, "group_id": group_id, "chord": chord, "root_id": root_id, "group_index": group_index}
        result = self._freeze_steps(self.tasks, {**own, "parent_id": parent_id})[-1]
        self.id = result.id
        return result

    _freeze = freeze

    # ------------------------------------------------------------ eager

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run all steps here, one after the other, as a worker would. Stops at the first that fails."""
        options = {**self.options, **options}
        link, link_error = options.pop("link", None), options.pop("link_error", None)
        options.pop("task_id", None)
        steps = running_order(self.tasks, self._app)
        if not steps:
            raise ValueError("a chain without steps cannot be run")
        link_all(steps, link, link_error)
        last: Any = None
        for index, step in enumerate(steps):
            if index == 0:
                result: EagerResult[Any] = step.apply((*(args or ()), *self.args), kwargs, **options)
            else:
                result = step.apply((last.get(),))
            result.parent, last = last, result
            if not result.successful():
                break
        return last

    # ------------------------------------------------------------ text

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return " | ".join(repr(step) for step in self.tasks)


#: Celery has two names for it.
_chain = chain


def _given(tasks: tuple[Any, ...]) -> Iterable[Any]:
    """``chain([a, b])`` and ``chain(a, b)`` are the same."""
    if len(tasks) == 1 and not isinstance(tasks[0], dict) and isinstance(tasks[0], Iterable):
        return tasks[0]
    return tasks
