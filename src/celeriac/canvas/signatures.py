"""A call of a task that has not been made yet: name, arguments and options, as a dict that any serializer takes.

Knows tasks by what they can do (``apply_async``, ``apply``, ``AsyncResult``) and apps by ``tasks`` and ``send_task``;
both are above this layer. On the wire it is what ``celery-wire.md`` §3.1 says; unknown keys are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableSequence
from copy import deepcopy
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from celeriac.canvas.stamping import StampingVisitor, collected, stamp_links
from celeriac.client.current import get_current_app
from celeriac.codec.envelope import new_id
from celeriac.exceptions import NotRegistered
from celeriac.result import AsyncResult

__all__ = ["Signature", "as_list", "maybe_signature", "signature"]

R = TypeVar("R")
_S = TypeVar("_S", bound="type[Signature[Any]]")


def as_list(value: Any) -> list[Any]:
    """``value`` as a list: None is empty, anything that is no list or tuple is its only element."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


class Signature(dict[str, Any], Generic[R]):
    """A task's name, arguments and options, to be sent now, later, or as a part of something larger.

    ``task`` is a task, a name, or a dict that becomes the signature as it is. Options are those of ``apply_async``. An
    immutable signature takes no arguments from the task before it.
    """

    #: The class for each ``subtask_type``.
    TYPES: ClassVar[dict[str, type[Signature[Any]]]] = {}
    #: The class for each task that has one of its own: these have no ``subtask_type`` on the wire.
    BY_TASK: ClassVar[dict[str, type[Signature[Any]]]] = {}
    #: Options that are not overridden once set: the completion of a group hangs on them.
    _FIXED_OPTIONS: ClassVar[frozenset[str]] = frozenset({"group_id", "stamped_headers"})

    _app: Any = None
    _type: Any = None

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,  # noqa: A002 - Celery's name
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **more_options: Any,
    ) -> None:
        if app is not None:
            self._app = app
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = getattr(task, "name", None)
        if type is not None or name is not None:
            self._type = type if type is not None else task
        super().__init__(
            task=task if name is None else name,
            args=tuple(args) if args else (),
            kwargs=kwargs or {},
            options={**options, **more_options} if options else more_options,
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[_S], _S]:
        """A class decorator: signatures of ``subtask_type`` ``name`` (default: the class's name) become that class."""

        def register(subclass: _S) -> _S:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """The signature in a mapping, of the class that its ``subtask_type`` names.

        Raises ``KeyError`` when there is no such class.
        """
        kind = d.get("subtask_type")
        target = cls.TYPES[kind] if kind else cls.BY_TASK.get(d.get("task", ""))
        if target is not None and target is not cls:
            return target.from_dict(d, app=app)
        return Signature(dict(d), app=app)

    # ------------------------------------------------------------ what it says

    @property
    def task(self) -> str:
        """Name of the task."""
        return cast(str, self["task"])

    @property
    def name(self) -> str:
        """Name of the task, as a task has it."""
        return cast(str, self["task"])

    @property
    def args(self) -> Any:
        """Positional arguments."""
        return self["args"]

    @args.setter
    def args(self, value: Any) -> None:
        self["args"] = value

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        return cast("dict[str, Any]", self["kwargs"])

    @kwargs.setter
    def kwargs(self, value: dict[str, Any]) -> None:
        self["kwargs"] = value

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``apply_async``."""
        return cast("dict[str, Any]", self["options"])

    @options.setter
    def options(self, value: dict[str, Any]) -> None:
        self["options"] = value

    @property
    def subtask_type(self) -> str | None:
        """What it is when it is more than one task: ``chain``, ``group`` …"""
        return self.get("subtask_type")

    @subtask_type.setter
    def subtask_type(self, value: str | None) -> None:
        self["subtask_type"] = value

    @property
    def immutable(self) -> bool:
        """It takes no arguments from the task before it."""
        return bool(self.get("immutable"))

    @immutable.setter
    def immutable(self, value: bool) -> None:
        self["immutable"] = value

    @property
    def id(self) -> str:
        """The task's id, once frozen. Raises ``KeyError`` before."""
        return cast(str, self["options"]["task_id"])

    @id.setter  # noqa: A003
    def id(self, value: str) -> None:
        self["options"]["task_id"] = value

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sends it, when said."""
        return cast("str | None", self["options"].get("parent_id"))

    @property
    def root_id(self) -> str | None:
        """Id of the workflow's first task, when said."""
        return cast("str | None", self["options"].get("root_id"))

    @property
    def app(self) -> Any:
        """The app it is sent through: its own, else that of what it is made of, else the current one."""
        own = self._app if self._app is not None else self._inner_app()
        return own if own is not None else get_current_app()

    def _inner_app(self) -> Any:
        """The app of the first of its parts that has one; None: nothing in it says."""
        for part in self._parts():
            app = part._app if part._app is not None else part._inner_app()
            if app is not None:
                return app
        return None

    def _parts(self) -> Iterable[Signature[Any]]:
        """The signatures that it is made of."""
        return ()

    @property
    def type(self) -> Any:
        """The task. Raises ``NotRegistered`` when this process does not know it."""
        return self._type if self._type is not None else self.app.tasks[self["task"]]

    # ------------------------------------------------------------ calling

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Run the task here and now, with ``args`` in front of its own."""
        args, kwargs, _ = self._merge(args, kwargs, None)
        return cast(R, self.type(*args, **kwargs))

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """``apply_async`` with the arguments as they come."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send the task, with ``args`` in front of its own and ``options`` over its own. See ``Task.apply_async``.

        ``route_name`` is the task name that routes are looked up by.
        """
        options = {key: value for key, value in options.items() if value is not None}
        if route_name:
            options["route_name"] = route_name
        if args or kwargs or options:
            args, kwargs, options = self._merge(args, kwargs, options)
        else:
            args, kwargs, options = self["args"], self["kwargs"], self["options"]
        return cast("AsyncResult[R]", self._send(args, kwargs, options))

    def _send(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Any:
        try:
            task = self.type
        except NotRegistered:
            return self.app.send_task(self["task"], args, kwargs, **options)
        return task.apply_async(args, kwargs, **options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the task here and now as a worker would. Returns an ``EagerResult``."""
        options = {key: value for key, value in options.items() if value is not None}
        args, kwargs, options = self._merge(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def __invert__(self) -> Any:
        return self.apply_async().get()

    # ------------------------------------------------------------ copies

    def _merge(
        self, args: Any = None, kwargs: Any = None, options: Mapping[str, Any] | None = None, force: bool = False
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Arguments and options with these added; ``force`` for an immutable signature too."""
        own = self["options"]
        if options:
            fixed = self._FIXED_OPTIONS
            if "stamped_headers" in own:
                fixed = fixed.union(own["stamped_headers"] or ())
            own = {**own, **{key: value for key, value in options.items() if key not in fixed or key not in own}}
        if self.get("immutable") and not force:
            return self["args"], self["kwargs"], own
        return (
            (*args, *self["args"]) if args else self["args"],
            {**self["kwargs"], **kwargs} if kwargs else self["kwargs"],
            own,
        )

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Self:
        """A copy with ``args`` in front, ``kwargs`` and ``options`` added."""
        args, kwargs, own = self._merge(args, kwargs, options)
        own = deepcopy(dict(own)) if own else {}
        copied = {**self, "args": tuple(args), "kwargs": dict(kwargs), "options": own}
        clone = Signature.from_dict(copied, app=self._app)
        clone._type = self._type
        return cast(Self, clone)

    partial = clone

    def replace(self, args: Any = None, kwargs: Any = None, options: dict[str, Any] | None = None) -> Self:
        """A copy with other arguments or options instead; None keeps what is there."""
        copy = self.clone()
        if args is not None:
            copy.args = args
        if kwargs is not None:
            copy.kwargs = kwargs
        if options is not None:
            copy.options = options
        return copy

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> AsyncResult[R]:
        """Give it its id now, so that its result is known before it is sent. Returns that result.

        A frozen signature is sent once: a second message would have the same id.
        """
        options = self["options"]
        task_id = options.get("task_id")
        if task_id is None:
            task_id = options["task_id"] = _id or new_id()
        if root_id:
            options["root_id"] = root_id
        if parent_id:
            options["parent_id"] = parent_id
        if "reply_to" not in options:
            options["reply_to"] = self.app.thread_oid
        if group_id and "group_id" not in options:
            options["group_id"] = group_id
        if chord:
            options["chord"] = chord
        if group_index is not None:
            options["group_index"] = group_index
        return cast("AsyncResult[R]", self.AsyncResult(task_id))

    _freeze = freeze

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 - Celery's name
        """What makes this task's results."""
        try:
            return self.type.AsyncResult
        except NotRegistered:
            return self.app.AsyncResult

    # ------------------------------------------------------------ options

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Set options of ``apply_async``; returns itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self["options"].update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Take no arguments from the task before it, or do."""
        self["immutable"] = immutable

    def _list_option(self, key: str) -> Any:
        items = self["options"].setdefault(key, [])
        if not isinstance(items, MutableSequence):
            items = self["options"][key] = as_list(items)
        return items

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Append ``value`` to an option that holds a list, unless it is there. Returns ``value``."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Append one or several values to an option that holds a list."""
        self._list_option(key).extend(as_list(value))

    def link(self, callback: Any) -> Any:
        """Send ``callback`` with the result when the task succeeds. Returns ``callback``."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Send ``errback`` with the task's id when it fails for good. Returns ``errback``."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """``link_error`` that returns the signature itself."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Any]:
        """Itself and all callbacks of callbacks."""
        found: list[Any] = [self]
        for link in as_list(self["options"].get("link")):
            found.extend(maybe_signature(link, app=self._app).flatten_links())
        return found

    # ------------------------------------------------------------ composing

    def steps(self) -> list[Signature[Any]]:
        """What it contributes to a chain: itself; a chain contributes its own steps."""
        return [self]

    def leaves(self) -> int:
        """How many tasks end it, as a member of a chord's header: one; a chain's last step; all of a group."""
        return 1

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        # The classes are in modules above this one.
        kind = other.get("subtask_type")
        if kind == "group" and len(other["kwargs"]["tasks"]) == 1:
            other = maybe_signature(other["kwargs"]["tasks"][0], app=self._app)
        following = other.steps() if kind == "chain" else [other]
        return self.TYPES["chain"]([self, *following], app=self._app)

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    # ------------------------------------------------------------ stamps

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Mark it, and all that is linked to it or part of it, with headers; or with those that ``visitor`` says.

        ``append_stamps`` keeps earlier values of the same stamp, in a list. Returns itself.
        """
        stamp_links(self, visitor, append_stamps, headers)
        said = visitor.on_signature(self, **headers) if visitor is not None else None
        return self.set(**collected(self.options, headers, said, append_stamps))

    def as_signatures(self, values: Any) -> list[Signature[Any]]:
        """One or several signatures, or dicts of them, as a list."""
        return [maybe_signature(value, app=self._app) for value in as_list(values)]

    # ------------------------------------------------------------ dict and text

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """The call as text: ``add(2, 2)``, with ``args`` in front."""
        args, kwargs, _ = self._merge(args, kwargs, {}, force=True)
        parts = [repr(value) for value in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
        return f"{self['task']}({', '.join(parts)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        # Options are changed when a workflow is prepared; arguments may be lazy and stay what they are.
        copied = dict(self)
        memo[id(self)] = copied
        copied["options"] = deepcopy(self["options"], memo)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)


def signature(varies: Any, *args: Any, app: Any = None, **kwargs: Any) -> Signature[Any]:
    """A signature from a task, a task's name, a mapping, or a signature (a copy of it)."""
    if isinstance(varies, dict):
        if isinstance(varies, Signature):
            return varies.clone()
        return Signature.from_dict(varies, app=app)
    made: Signature[Any] = Signature(varies, *args, **kwargs)
    if app is not None:
        made._app = app
    return made


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """``d`` as a signature bound to ``app``: mappings are converted, None stays None, ``clone`` copies signatures."""
    if d is None:
        return None
    if isinstance(d, Signature):
        if clone:
            d = d.clone()
    elif isinstance(d, dict):
        d = Signature.from_dict(d, app=app)
    if app is not None:
        d._app = app
    return d
