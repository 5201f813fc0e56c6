"""Tasks at the same time. A group's id is the id of its result; each task's message carries it, and its place in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, cast

from celeriac.canvas.signatures import Signature, maybe_signature
from celeriac.canvas.stamping import StampingVisitor, collected, stamp_links
from celeriac.canvas.steps import is_empty_group, is_group
from celeriac.codec.envelope import new_id

__all__ = ["group", "member_of"]

#: Options of a group that its tasks do not get as they are.
_OWN_OPTIONS = ("task_id", "group_id", "group_index", "chord", "producer", "add_to_parent")


def member_of(task: Any, app: Any, whole: str) -> Signature[Any]:
    """A task as a signature. Raises ``TypeError`` for what is none."""
    found = maybe_signature(task, app=app)
    if not isinstance(found, Signature):
        raise TypeError(f"a {whole} is made of signatures, such as task.s(2), not of {type(task).__name__}")
    return found


@Signature.register_type()
class group(Signature[Any]):  # noqa: N801 - Celery's name
    """``group(a.s(1), b.s(2))``, or one iterable of signatures: all are sent at once, by calling it.

    Groups among its tasks give their tasks. ``group(…) | c.s()`` is a chord: ``c`` is called with the list of results.
    ``options`` are those of all tasks.
    """

    def __init__(self, *tasks: Any, app: Any = None, **options: Any) -> None:
        given: Iterable[Any] = tasks
        if len(tasks) == 1:
            only = tasks[0]
            if is_group(only):
                given = only["kwargs"]["tasks"]
            elif isinstance(only, Signature):
                given = [only.clone()]
            elif not isinstance(only, dict):
                given = only
        members = [member_of(task, app, "group") for task in given]
        super().__init__("celery.group", (), {"tasks": members}, options, subtask_type="group", app=app)
        self._type = None

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """A group from what was on the wire; keys it does not know are kept."""
        made = group(list(d["kwargs"]["tasks"]), app=app)
        made.update({**d, "kwargs": {**d["kwargs"], "tasks": made.tasks}})
        return made

    @property
    def tasks(self) -> list[Signature[Any]]:
        """The tasks, in order."""
        return cast("list[Signature[Any]]", self["kwargs"]["tasks"])

    @tasks.setter
    def tasks(self, value: list[Signature[Any]]) -> None:
        self["kwargs"]["tasks"] = value

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Send it, with ``args`` in front of the arguments of each task."""
        return self.apply_async(args, **options)

    def __or__(self, other: Any) -> Any:
        if isinstance(other, dict) and "task" in other:
            other = maybe_signature(other, app=self._app)
        if not isinstance(other, Signature):
            return NotImplemented
        return self if is_empty_group(other) else self.TYPES["chord"](self, other, app=self._app)

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True  # it is a signature, if one without tasks

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Self:
        """A copy, tasks included."""
        copy = super().clone(args, kwargs, **options)
        copy.tasks = [maybe_signature(task, app=self._app, clone=True) for task in copy.tasks]
        return copy

    def _parts(self) -> Iterable[Signature[Any]]:
        return self.tasks

    def leaves(self) -> int:
        """See ``Signature.leaves``: those of all its tasks."""
        return sum(maybe_signature(task).leaves() for task in self.tasks)

    def members(self, *, copies: bool = True) -> Iterator[Signature[Any]]:
        """Copies of the tasks, those of groups among them in their place; what has no tasks is left out.

        Without ``copies`` tasks that have no options come as they are: a group may have a hundred thousand.
        """
        for task in self.tasks:
            member = maybe_signature(task, app=self._app)
            if member["task"] == "celery.chunks":
                member = member.group()
            if isinstance(member, group):
                yield from member.members(copies=copies)
            elif type(member) is Signature and not member["options"]:
                yield _plain_copy(member) if copies else member
            elif member.leaves():
                yield member.clone()

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Spread the tasks in time: countdowns of ``start``, ``start + step`` … seconds, ``stop`` at most."""
        countdown = start
        for task in self.tasks:
            task.set(countdown=countdown)
            countdown = countdown + step if stop is None else min(countdown + step, stop)
        return self

    # ------------------------------------------------------------ sending

    def apply_async(  # type: ignore[override]
        self,
        args: Any = None,
        kwargs: Any = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> Any:
        """Send all tasks, with ``args`` in front of the arguments of each: all or none.

        ``options`` are those of all tasks. Returns a ``GroupResult``. Raises ``TypeError`` for ``link`` and
        ``link_error``: a group has no end of its own; make it a chord, or link its tasks.
        """
        if link is not None or link_error is not None:
            raise TypeError("Cannot add link to group: use a chord, or link the tasks of the group")
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        args = (*(args or ()), *self.args)
        given = {key: value for key, value in options.items() if value is not None}
        fixed = self._FIXED_OPTIONS
        merged = {**self.options, **{key: v for key, v in given.items() if key not in fixed or key not in self.options}}
        own = {name: merged.pop(name, None) for name in _OWN_OPTIONS}
        group_id = own["task_id"] or new_id()
        # As a member of a chord's header it has no word of its own: its tasks join the chord.
        joins = own["group_id"] if own["chord"] is not None and own["group_id"] else group_id
        place = own["group_index"] or 0
        results = self.send(args, kwargs, merged, group_id=joins, place=place, chord=own["chord"], producer=producer)
        # group(chain(a, group(b, c))) is that inner group.
        nested = len(results) == 1 and not hasattr(results[0], "_get_task_meta")
        result = results[0] if nested else app.GroupResult(group_id, results)
        if add_to_parent:
            app.add_trail(result)
        return result

    def send(
        self,
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
        *,
        group_id: str,
        chord: Any = None,
        place: int = 0,
        producer: Any = None,
        members: Iterable[Signature[Any]] | None = None,
    ) -> list[Any]:
        """Send the tasks as members of the group ``group_id``, the first at ``place``. Returns their results.

        ``members``: copies of the tasks that were made for this.
        """
        prepared = self._prepared(
            self.members(copies=False) if members is None else members, args, kwargs, options, group_id, chord, place
        )
        return cast("list[Any]", self.app.send_many(prepared, producer=producer, add_to_parent=False, together=True))

    @staticmethod
    def _prepared(
        members: Iterable[Signature[Any]],
        args: Any,
        kwargs: Any,
        options: Mapping[str, Any],
        group_id: str,
        chord: Any,
        place: int,
    ) -> Iterator[Any]:
        """The members as ``send_many`` takes them: signatures, and those without options with what they get here."""
        common = {**options, "group_id": group_id}
        if chord is not None:
            common["chord"] = chord
        for member in members:
            if type(member) is Signature and not member["options"]:
                if not (args or kwargs):
                    yield member, {**common, "group_index": place}
                    place += 1
                    continue
                member = _plain_copy(member)
            own = member.options
            if own.get("group_id", group_id) != group_id:
                # Frozen as a member of another group: that one's place is not ours.
                del own["group_id"]
            own.update(common)
            own["group_index"] = place
            place += member.leaves()
            if (args or kwargs) and not member.immutable:
                member.args = (*(args or ()), *member.args)
                member.kwargs = {**member.kwargs, **(kwargs or {})}
            yield member

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give it and all its tasks their ids. Returns the ``GroupResult``."""
        options = self.options
        gid = options.setdefault("task_id", _id or new_id())
        said = {"group_id": group_id, "chord": chord, "group_index": group_index}
        options.update({key: value for key, value in said.items() if value is not None})
        for key, value in (("root_id", root_id), ("parent_id", parent_id)):
            if value:
                options.setdefault(key, value)
        self.tasks = list(self.members())
        results = []
        place = group_index or 0
        for member in self.tasks:
            results.append(
                member.freeze(group_id=group_id or gid, root_id=root_id, parent_id=parent_id, group_index=place)
            )
            place += member.leaves()
        return self.app.GroupResult(gid, results)

    _freeze = freeze

    # ------------------------------------------------------------ eager

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run all tasks here, one after the other. Returns a ``GroupResult``."""
        merged = {**self.options, **options}
        group_id = merged.pop("task_id", None) or new_id()
        for name in ("chord", "group_id", "group_index"):
            merged.pop(name, None)
        args = (*(args or ()), *self.args)
        results = [member.apply(args, kwargs, **merged) for member in self.members()]
        return self.app.GroupResult(group_id, results)

    # ------------------------------------------------------------ options

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Stamp its tasks and what is linked to it."""
        said = visitor.on_group_start(self, **headers) if visitor is not None else None
        stamps = collected(self.options, headers, said, append_stamps)
        stamp_links(self, visitor, append_stamps, stamps)
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **stamps)
        if visitor is not None:
            visitor.on_group_end(self, **stamps)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Let its tasks take no arguments from the task before it, or do."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Link ``callback`` to the first task, without that task's result: use a chord to wait for all of them."""
        return self.tasks[0].link(maybe_signature(callback, app=self._app).clone().set(immutable=True))

    def link_error(self, errback: Any) -> Any:
        """Link ``errback`` to each task. Returns the signatures that were linked."""
        errback = maybe_signature(errback, app=self._app)
        return tuple(task.link_error(errback.clone()) for task in self.tasks)

    def __repr__(self) -> str:
        if not self.tasks:
            return "group(<empty>)"
        return f"group([{', '.join(map(repr, self.tasks))}])"


def _plain_copy(member: Signature[Any]) -> Signature[Any]:
    """``clone`` of a signature without options, in a third of the time."""
    copy: Signature[Any] = Signature({**member, "options": {}}, app=member._app)
    copy._type = member._type
    return copy
