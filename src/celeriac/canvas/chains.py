"""Tasks one after the other, each called with the result of the one before.

The first step is sent with the others, in reverse order, in its message (``celery-wire.md`` §3.1); who finishes a step
pops the last of them. A chain has the id of its last step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Self, cast

from celeriac.canvas.signatures import Signature, as_list, maybe_signature
from celeriac.result import AsyncResult, EagerResult, allow_join_result

__all__ = ["chain"]

#: Options of a chain that do not go to its first step as they are.
_OWN_OPTIONS = (
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


@Signature.register_type(name="chain")
class chain(Signature[Any]):  # noqa: N801 - Celery's name
    """``chain(a.s(1), b.s(2))``, or ``a.s(1) | b.s(2)``: ``b`` is called with the result of ``a`` in front.

    ``link`` is called after the last step, ``link_error`` on a failure of any. Calling ``chain(...)()`` sends it.
    """

    def __init__(self, *tasks: Any, app: Any = None, **options: Any) -> None:
        if len(tasks) == 1 and not isinstance(tasks[0], dict) and isinstance(tasks[0], Iterable):
            tasks = tuple(tasks[0])
        super().__init__("celery.chain", (), {"tasks": list(_flat(tasks, app))}, options, subtask_type="chain", app=app)
        self._type = None

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """A chain from what was on the wire; keys it does not know are kept."""
        made = cls(*d["kwargs"]["tasks"], app=app)
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
        _link(steps, self.options.get("link"), self.options.get("link_error"))
        return steps

    unchain_tasks = steps

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        return type(self)(*self.steps(), *other.steps(), app=self._app)

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Self:
        """A copy, steps included."""
        copy = super().clone(args, kwargs, **options)
        copy.tasks = [maybe_signature(step, app=self._app, clone=True) for step in copy.tasks]
        return copy

    # ------------------------------------------------------------ sending

    def apply_async(
        self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """Send the first step, with ``args`` in front of its own and the others in tow.

        ``options`` are the first step's, but ``link``, ``link_error``, ``task_id`` … are the chain's. Returns the
        result of the last step, whose ``parent`` is the one before. With ``task_always_eager`` all steps run here.
        """
        if self.app.conf.task_always_eager:
            with allow_join_result():
                return cast("AsyncResult[Any]", self.apply(args, kwargs, **options))
        merged = {**self.options, **options} if options else dict(self.options)
        own = {name: merged.pop(name, None) for name in _OWN_OPTIONS}
        steps, results = self._prepared(args, kwargs, own)
        if not steps:
            raise ValueError("a chain without steps cannot be sent")
        first, rest = steps[0], steps[:0:-1]
        following = merged.pop("chain", None)
        if rest or following:
            # A chain within a chain's message: what follows it stays behind its own steps.
            merged["chain"] = [*(following or ()), *rest]
        if own["producer"] is not None:
            merged["producer"] = own["producer"]
        sent = first.apply_async(**merged)
        return results[-1] if rest else sent

    def _prepared(
        self, args: Any, kwargs: Any, own: Mapping[str, Any]
    ) -> tuple[list[Signature[Any]], list[AsyncResult[Any]]]:
        """Copies of the steps, frozen and linked, and their results."""
        steps = [step.clone() for step in self.tasks]
        if not steps:
            return [], []
        partial = (*args, *self.args) if args and not self.immutable else self.args
        if partial or kwargs:
            steps[0] = steps[0].clone(partial, kwargs or None)
        _link(steps, own["link"], own["link_error"])
        return steps, self._freeze_steps(steps, own)

    def _freeze_steps(self, steps: list[Signature[Any]], own: Mapping[str, Any]) -> list[AsyncResult[Any]]:
        results: list[AsyncResult[Any]] = [step.freeze(root_id=own.get("root_id")) for step in steps[:-1]]
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
            if after.parent is None:
                after.parent = before
        self.id = results[-1].id
        return results

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> AsyncResult[Any]:
        """Give all steps their ids. Returns the result of the last."""
        if not self.tasks:
            raise ValueError("a chain without steps cannot be frozen")
        own = {"task_id": _id, "group_id": group_id, "chord": chord, "root_id": root_id, "group_index": group_index}
        return self._freeze_steps(self.tasks, {**own, "parent_id": parent_id})[-1]

    _freeze = freeze

    # ------------------------------------------------------------ eager

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> EagerResult[Any]:
        """Run all steps here, one after the other, as a worker would. Stops at the first that fails."""
        options = {**self.options, **options}
        link, link_error = options.pop("link", None), options.pop("link_error", None)
        options.pop("task_id", None)
        last: EagerResult[Any] | None = None
        for index, step in enumerate(self.tasks):
            step = step.clone((*(args or ()), *self.args), kwargs) if index == 0 else step.clone((last.get(),))  # type: ignore[union-attr]
            _link([step], link if index == len(self.tasks) - 1 else None, link_error)
            result = step.apply(**(options if index == 0 else {}))
            result.parent, last = last, result
            if not result.successful():
                break
        if last is None:
            raise ValueError("a chain without steps cannot be run")
        return last

    # ------------------------------------------------------------ text

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return " | ".join(repr(step) for step in self.tasks)


def _flat(tasks: Iterable[Any], app: Any) -> Iterator[Signature[Any]]:
    """Signatures in order; chains among them give their steps."""
    for task in tasks:
        step = maybe_signature(task, app=app)
        if not isinstance(step, Signature):
            raise TypeError(f"a chain is made of signatures, such as task.s(2), not of {type(task).__name__}")
        if isinstance(step, chain):
            yield from step.steps()
        else:
            yield step


def _link(steps: list[Signature[Any]], link: Any, link_error: Any) -> None:
    """Callbacks go to the last step, errbacks to all."""
    for callback in as_list(link):
        steps[-1].link(callback)
    for errback in as_list(link_error):
        for step in steps:
            step.link_error(errback)
