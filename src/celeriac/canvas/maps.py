"""One task called for each item of a list: in one message (``xmap``, ``xstarmap``), or in a message per chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

from celeriac.canvas.groups import group
from celeriac.canvas.signatures import Signature, maybe_signature

__all__ = ["chunks", "xmap", "xstarmap"]

#: Longest text of the items in a repr.
_SHOWN = 100


class _Map(Signature[Any]):
    """Base of those that run one task for each item, one after the other, in a single task."""

    #: The built-in task that does it.
    TASK: ClassVar[str]

    def __init__(self, task: Any, it: Iterable[Any], app: Any = None, **options: Any) -> None:
        super().__init__(self.TASK, (), {"task": task, "it": list(it)}, options, immutable=True, app=app)
        self._type = None

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """The signature in a mapping."""
        made = cls(d["kwargs"]["task"], d["kwargs"]["it"], app=app)
        made.update(d)
        return made

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Send it; routed as the task that it calls."""
        name = route_name or _name(self.kwargs["task"])
        return super().apply_async(args, kwargs, route_name=name, **options)

    def _items(self) -> str:
        text = repr(self.kwargs["it"])
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


@Signature.register_type()
class xmap(_Map):  # noqa: N801 - Celery's name
    """``xmap(task.s(), items)``: a list of ``task(item)``, computed by one task. Also ``task.map(items)``."""

    TASK = "celery.map"

    def __repr__(self) -> str:
        return f"[{_name(self.kwargs['task'])}(x) for x in {self._items()}]"


@Signature.register_type()
class xstarmap(_Map):  # noqa: N801 - Celery's name
    """``xstarmap(task.s(), items)``: a list of ``task(*item)``, computed by one task. Also ``task.starmap(items)``."""

    TASK = "celery.starmap"

    def __repr__(self) -> str:
        return f"[{_name(self.kwargs['task'])}(*x) for x in {self._items()}]"


@Signature.register_type()
class chunks(Signature[Any]):  # noqa: N801 - Celery's name
    """``chunks(task.s(), items, n)``: ``task(*item)`` for each item, ``n`` items a message. Also ``task.chunks(…)``.

    Its result is that of a group: a list of lists.
    """

    def __init__(self, task: Any, it: Iterable[Any], n: int, app: Any = None, **options: Any) -> None:
        if n < 1:
            raise ValueError(f"chunks of {n} items: there must be 1 at least")
        kwargs = {"task": task, "it": list(it), "n": n}
        super().__init__("celery.chunks", (), kwargs, options, immutable=True, app=app)
        self._type = None

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature[Any]:
        """The chunks in a mapping."""
        kwargs = d["kwargs"]
        made = cls(kwargs["task"], kwargs["it"], kwargs["n"], app=app)
        made.update(d)
        return made

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Any = None) -> Any:
        """Send chunks at once."""
        return cls(task, it, n, app=app)()

    def __call__(self, **options: Any) -> Any:
        """Send it. Returns a ``GroupResult``."""
        return self.apply_async(**options)

    def __or__(self, other: Any) -> Any:
        return self.group() | other

    def leaves(self) -> int:
        """See ``Signature.leaves``: one a chunk."""
        count: int = -(-len(self.kwargs["it"]) // self.kwargs["n"])
        return count

    def group(self) -> group:
        """A group with one ``xstarmap`` a chunk."""
        task, app = self.kwargs["task"], self._app
        parts = _parts(self.kwargs["it"], self.kwargs["n"])
        return group((xstarmap(task, part, app=app) for part in parts), app=app)

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Send one task a chunk, routed as the task that they call. Returns a ``GroupResult``."""
        merged = {**self.options, **options}
        return self.group().apply_async(args, kwargs, **merged)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run all chunks here."""
        return self.group().apply(args, kwargs, **{**self.options, **options})


Signature.BY_TASK |= {"celery.map": xmap, "celery.starmap": xstarmap, "celery.chunks": chunks}


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _name(task: Any) -> str:
    found = maybe_signature(task) if isinstance(task, dict) else task
    name: str = getattr(found, "task", None) or getattr(found, "name", None) or str(found)
    return name
