"""A group and what comes after all of it: the body is called with the list of the header's results.

Each task of the header carries the body in its message; whoever ends the last one sends it (``celery-wire.md`` §3.5,
``model/chord.py``). Knows no store: it tells it through ``app.backend``, or through the producer that collects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

from celeriac.canvas.groups import group, member_of
from celeriac.canvas.signatures import Signature, as_list, maybe_signature
from celeriac.canvas.stamping import StampingVisitor, collected, stamp_links
from celeriac.canvas.steps import is_chain, is_chord, is_group, refuse_key, unrolled
from celeriac.codec.body import ChordBody
from celeriac.codec.chords import encode_body
from celeriac.codec.envelope import new_id
from celeriac.codec.json import dumps
from celeriac.codec.signing import seal, signer_of
from celeriac.model.chord import NewChord
from celeriac.result import allow_join_result

__all__ = ["_chord", "chord"]

#: Options that concern the sending of the header alone.
_HEADER_OPTIONS = frozenset({"countdown", "eta"})
#: Options of a chord that its body does not get as they are.
_NOT_THE_BODYS = _HEADER_OPTIONS | {"task_id", "parent_id", "link", "link_error", "producer", "add_to_parent"}
#: Options of a chord that its header does not get.
_NOT_THE_HEADERS = frozenset(
    {"task_id", "link", "link_error", "producer", "add_to_parent", "chain", "chord", "group_id", "group_index"}
)


@Signature.register_type(name="chord")
class _chord(Signature[Any]):  # noqa: N801 - Celery's name
    """``chord([a.s(1), b.s(2)])(c.s())``, or ``chord(header, body)``: ``c`` is called with ``[a's, b's result]``.

    A header task that fails fails the body with ``ChordError`` naming it. ``link`` and ``link_error`` are the body's.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        tasks = _tasks(header, app)
        whole = {**(kwargs or {"kwargs": {}}), "header": tasks, "body": maybe_signature(body, app=app)}
        super().__init__(task, args, whole, options, subtask_type="chord", app=app)
        self._type = None

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """A chord from what was on the wire; keys it does not know are kept."""
        kwargs = d["kwargs"]
        made = _chord(kwargs["header"], kwargs.get("body"), app=app)
        made.update({**d, "kwargs": {"kwargs": {}, **kwargs, "header": made.tasks, "body": made.body}})
        return made

    @property
    def tasks(self) -> Any:
        """The header: a list of signatures, or a group once it is frozen."""
        return self["kwargs"]["header"]

    @tasks.setter
    def tasks(self, value: Any) -> None:
        self["kwargs"]["header"] = value

    @property
    def body(self) -> Any:
        """What is called with the results."""
        return self["kwargs"]["body"]

    @body.setter
    def body(self, value: Any) -> None:
        self["kwargs"]["body"] = value

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with ``body`` instead of its own if given. Returns the body's result."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        other = unrolled(other)
        if is_group(other) or is_chain(other):
            return super().__or__(other)
        joined = self.clone()
        joined.body = joined.body | other
        return joined

    def _parts(self) -> Iterable[Signature[Any]]:
        return [part for part in (*_list(self.tasks), self.body) if isinstance(part, Signature)]

    def leaves(self) -> int:
        """See ``Signature.leaves``: those of its body."""
        return 0 if self.body is None else maybe_signature(self.body).leaves()

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Self:
        """A copy, header and body included."""
        copy = super().clone(args, kwargs, **options)
        copy.tasks = (
            maybe_signature(copy.tasks, clone=True)
            if is_group(copy.tasks)
            else [maybe_signature(task, app=self._app, clone=True) for task in copy.tasks]
        )
        copy.body = maybe_signature(copy.body, clone=True)
        return copy

    # ------------------------------------------------------------ sending

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, producer: Any = None, **options: Any
    ) -> Any:
        """Send the header, with ``args`` in front of the arguments of each of its tasks, and the body in tow.

        ``task_id`` is the body's. ``countdown`` and ``eta`` are the header's, other options of both. Returns the result
        of the body, whose ``parent`` is the ``GroupResult`` of the header. An empty header calls the body with ``[]``.

        Raises ``NotImplementedError`` when there is no result backend to wait in.
        """
        args = (*args, *self.args) if args and not self.immutable else self.args
        partial = {**self["kwargs"].get("kwargs", {}), **(kwargs or {})}
        body = partial.pop("body", None) or self.body
        if body is None:
            raise TypeError("a chord needs a body: chord(header)(body)")
        app = self.app
        body = member_of(body, self._app, "chord's body").clone()
        refuse_key(body)
        given = {**self.options, **{key: value for key, value in options.items() if value is not None}}
        _link(body, given)
        if app.conf.task_always_eager:
            with allow_join_result():
                return self.apply(args, partial, body=body, task_id=task_id, **options)
        header = self._group()
        group_id = header.options.get("task_id") or new_id()
        frozen = self.options.get("task_id")
        if task_id is None and frozen != group_id:
            task_id = given.get("task_id")
        body.options.update({key: value for key, value in given.items() if key not in _NOT_THE_BODYS})
        result = body.freeze(task_id, root_id=given.get("root_id"))
        shared = {key: value for key, value in given.items() if key not in _NOT_THE_HEADERS}
        if not header.leaves():
            body.apply_async(([],), producer=producer)
            result.parent = app.GroupResult(group_id, [])
            return result
        under = header.freeze(group_id, root_id=given.get("root_id"))
        encoded = encode_body(body, "application/x-python-serialize")
        self._open(app, producer, header, under, encoded, shared)
        chord = ChordBody(body, encoded) if encoded.startswith(b"{") else dict(body)
        under.results = header.send(
            args, partial, shared, group_id=group_id, chord=chord, producer=producer, members=header.tasks
        )
        if given.get("add_to_parent", True):
            app.add_trail(under)
        # Not the first parent of a chain's results: Celery's users find the header right before the result they get.
        result.parent = under
        return result

    @staticmethod
    def _open(app: Any, producer: Any, header: group, under: Any, body: bytes, options: Mapping[str, Any]) -> None:
        """Write the chord before its first task can end."""
        app.backend.ensure_chords_allowed()
        expires = app.conf.seconds("result_chord_expires") or app.conf.seconds("result_expires") or None
        if expires is not None and options.get("countdown"):
            expires += float(options["countdown"])
        shaped = any(hasattr(member, "results") for member in under.results)
        signer = signer_of(app.conf)
        chord = NewChord(
            id=under.id,
            size=header.leaves(),
            body=seal(signer, "chord", under.id, body),
            shape=seal(signer, "shape", under.id, dumps({"result": under.as_tuple()})) if shaped else b"",
            expires=expires,
        )
        if producer is not None and hasattr(producer, "open_chord"):
            producer.open_chord(chord)
        else:
            app.backend.open_chord(chord)

    def _group(self) -> group:
        """The header as a group that may be changed."""
        tasks = self.tasks
        if is_group(tasks):
            return cast(group, tasks.clone())
        return group([maybe_signature(task, app=self._app) for task in tasks], app=self._app)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give header and body their ids. Returns the result of the body. Raises ``NotImplementedError`` where results
        go to a backend in which tasks cannot wait for each other: now, and not in a worker when its turn comes."""
        if not self.app.conf.task_always_eager:
            self.app.backend.ensure_chords_allowed()
        header = self.tasks if is_group(self.tasks) else self._group()
        under = header.freeze(root_id=root_id, parent_id=parent_id)
        self.tasks, self.id = header, under.id
        if self.body is None:
            return None
        result = self.body.freeze(_id, root_id=root_id, chord=chord, group_id=group_id, group_index=group_index)
        return _under(result, under)

    _freeze = freeze

    # ------------------------------------------------------------ eager

    def apply(
        self, args: Any = None, kwargs: Any = None, propagate: bool = True, body: Any = None, **options: Any
    ) -> Any:
        """Run the header's tasks here, then the body. Returns the result of the body."""
        if args and not self.immutable:
            args = (*args, *self.args)
        results = self._group().apply(args or self.args, kwargs)
        options = {key: value for key, value in options.items() if key in ("task_id", "throw")}
        body = self.body if body is None else body
        return _under(body.apply((results.get(propagate=propagate),), **options), results)

    # ------------------------------------------------------------ options

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Stamp the tasks of the header and what is linked to it; the body when a visitor says how, as Celery does."""
        said = visitor.on_chord_header_start(self, **headers) if visitor is not None else None
        stamps = collected(self.options, headers, said, append_stamps)
        stamp_links(self, visitor, append_stamps, stamps)
        for task in _list(self.tasks):
            task.stamp(visitor, append_stamps, **stamps)
        if visitor is not None:
            visitor.on_chord_header_end(self, **stamps)
        if self.body is not None and visitor is not None:
            said = visitor.on_chord_body(self, **stamps)
            self.body.stamp(visitor, append_stamps, **collected(self.options, stamps, said, append_stamps))
        return self

    def link(self, callback: Any) -> Any:
        """Link ``callback`` to the body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Link ``errback`` to the body, which fails when a task of the header fails.

        With ``task_allow_error_cb_on_chord_header`` also, without arguments, to each task of the header.
        """
        errback = maybe_signature(errback, app=self._app)
        on_header = self.app.conf.task_allow_error_cb_on_chord_header
        for task in _list(self.tasks):
            if on_header:
                task.link_error(errback.clone().set(immutable=True))
            elif is_chord(task):
                task.link_error(errback)
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Let the tasks of the header take no arguments from the task before them, or do."""
        for task in _list(self.tasks):
            task.set_immutable(immutable)

    def __length_hint__(self) -> int:
        """How many tasks have to end before the body is called."""
        return sum(maybe_signature(task).leaves() for task in _list(self.tasks))

    def __repr__(self) -> str:
        if self.body is None:
            return f"<chord without body: {self.tasks!r}>"
        first, *rest = self.body.tasks if is_chain(self.body) else (self.body,)
        called = f"%{first.reprcall(_list(self.tasks))}" if hasattr(first, "reprcall") else repr(first)
        return " | ".join([called, *map(repr, rest)])


#: Celery has two names for it.
chord = _chord


def _tasks(header: Any, app: Any) -> Any:
    """The signatures of a header: those of a group or a chain, or of any iterable."""
    if isinstance(header, dict):
        header = maybe_signature(header, app=app)
        if is_group(header) or is_chain(header):
            return header if is_group(header) and "task_id" in header.options else header.tasks
        return [header]
    return [member_of(task, app, "chord's header") for task in header]


def _list(header: Any) -> list[Any]:
    return list(header["kwargs"]["tasks"] if is_group(header) else header)


def _link(body: Any, given: dict[str, Any]) -> None:
    """Take ``link`` and ``link_error`` out of a chord's options and give them to its body."""
    for callback in as_list(given.pop("link", None)):
        body.link(maybe_signature(callback))
    for errback in as_list(given.pop("link_error", None)):
        body.link_error(maybe_signature(errback))


def _under(result: Any, header: Any) -> Any:
    """``result`` with the header's as the first of its parents."""
    node = result
    while node.parent is not None:
        node = node.parent
    node.parent = header
    return result
