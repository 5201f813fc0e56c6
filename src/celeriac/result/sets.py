"""Results of many tasks: of any (``ResultSet``), and of those that a group has sent (``GroupResult``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

from celeriac import states
from celeriac.client.current import app_or_default
from celeriac.client.joining import assert_will_not_block
from celeriac.client.many import arriving, present
from celeriac.client.records import Meta
from celeriac.exceptions import TimeoutError  # noqa: A004 - Celery's name
from celeriac.result.single import AsyncResult, ResultBase

__all__ = ["GroupResult", "ResultSet"]

R = TypeVar("R")


class ResultSet(ResultBase, Generic[R]):
    """A list of results. A member may be a set itself: its value is a list then."""

    def __init__(self, results: Iterable[Any], app: Any = None, **_celery: Any) -> None:
        self.results: list[Any] = results if isinstance(results, list) else list(results)
        self._app = app
        self._then: list[tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = []

    @property
    def app(self) -> Any:
        """The app of its members, else the current one."""
        if self._app is None:
            own = next((member.app for member in self.results if member.app is not None), None)
            self._app = own if own is not None else app_or_default(None)
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def backend(self) -> Any:
        """Where the records are."""
        return self.app.backend

    # ------------------------------------------------------------ waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, R], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Any:
        """Wait for all and return their values as a list, in the order of the set.

        Args:
            timeout: seconds for all together; None: for ever.
            propagate: raise the exception of the first that is seen to have failed; False: it takes the value's place.
            interval: seconds between calls of ``on_interval``. Nothing is polled.
            callback: called with id and value of each as it comes; nothing is returned then.
            on_message: called with each record.
            no_ack: not used; Celery's signature.
            disable_sync_subtasks: refuse to wait inside a task.

        Raises:
            TimeoutError: it took longer than ``timeout``.
            RuntimeError: called inside a task.
            OperationalError: the result backend cannot be reached.
            Exception: what a task raised.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        values: dict[str, Any] = {}
        for member_id, meta in self.iter_native(timeout, interval, on_message=on_message, on_interval=on_interval):
            if isinstance(meta, list):
                value: Any = [
                    each.get(propagate=propagate, disable_sync_subtasks=disable_sync_subtasks) for each in meta
                ]
            else:
                value = _value_of(meta, propagate)
            if callback is not None:
                callback(member_id, value)
            else:
                values[member_id] = value
        self._tell()
        return None if callback is not None else [values[member.id] for member in self.results]

    join_native = get

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callable[[str, R], Any] | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[R]:
        """``get``, one member after the other: of several failures the first in order is raised. With ``callback`` the
        list is empty."""
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        values: list[R] = []
        for member in self.results:
            value = member.get(
                timeout=None if deadline is None else max(0.0, deadline - time.monotonic()),
                propagate=propagate,
                interval=interval,
                disable_sync_subtasks=disable_sync_subtasks,
                on_message=on_message,
                on_interval=on_interval,
            )
            if callback is not None:
                callback(member.id, value)
            else:
                values.append(value)
        self._tell()
        return values

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """``(id, record)`` of each as it comes; for a member that is a set, ``(id, its results)`` once all are there.

        Raises ``TimeoutError`` after ``timeout`` seconds for all together.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting: dict[str, AsyncResult[Any]] = {}
        for member in self.results:
            if not isinstance(member, AsyncResult):
                continue
            if member._cache is not None:
                yield member.id, member._cache
            elif member.ignored:
                yield member.id, {"status": states.SUCCESS, "result": None}
            else:
                waiting[member.id] = member
        if waiting:
            app = self.app
            came = arriving(
                app.backend.reader, waiting, app.conf, timeout=timeout, interval=interval, on_interval=on_interval
            )
            for task_id, meta in came:
                waiting[task_id]._keep(meta)
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
        for member in self.results:
            if isinstance(member, ResultSet):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                member._wait(left, interval, on_message, on_interval)
                yield member.id, member.results

    def _wait(
        self,
        timeout: float | None,
        interval: float,
        on_message: Callable[[Meta], Any] | None,
        on_interval: Callable[[], Any] | None,
    ) -> None:
        for _ in self.iter_native(timeout, interval, on_message=on_message, on_interval=on_interval):
            pass

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> list[R]:
        """``get`` for coroutines: the event loop goes on meanwhile. Allowed inside ``async def`` tasks."""
        import asyncio
        import builtins

        waits = [member.aget(propagate=propagate) for member in self.results]
        try:
            async with asyncio.timeout(timeout):
                return list(await asyncio.gather(*waits))
        except builtins.TimeoutError:
            raise TimeoutError("The operation timed out.") from None

    def then(
        self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None = None, weak: bool = False
    ) -> Self:
        """Call ``callback(set)`` once all are known to be there: nothing watches in the background."""
        self._then.append((callback, on_error))
        if all(member._cache is not None for member in self.results if isinstance(member, AsyncResult)):
            self._tell()
        return self

    def _tell(self) -> None:
        waiting, self._then = self._then, []
        for callback, _ in waiting:
            callback(self)

    # ------------------------------------------------------------ asking

    def _look(self) -> None:
        """Read all records that are not known yet, in as few round trips as there can be."""
        unknown = {leaf.id: leaf for leaf in self._leaves() if leaf._cache is None and not leaf.ignored}
        if unknown:
            app = self.app
            for task_id, meta in present(app.backend.reader, unknown, app.conf):
                unknown[task_id]._keep(meta)

    def _leaves(self) -> Iterator[AsyncResult[Any]]:
        for member in self.results:
            if isinstance(member, ResultSet):
                yield from member._leaves()
            else:
                yield member

    def _states(self) -> list[str | None]:
        """The terminal states there are; None for what is not ready."""
        self._look()
        done = states.SUCCESS
        return [
            leaf._cache["status"] if leaf._cache is not None else (done if leaf.ignored else None)
            for leaf in self._leaves()
        ]

    def ready(self) -> bool:
        """Whether all have ended."""
        return None not in self._states()

    def waiting(self) -> bool:
        """Whether one has not ended."""
        return None in self._states()

    def successful(self) -> bool:
        """Whether all have ended well."""
        return all(state == states.SUCCESS for state in self._states())

    def failed(self) -> bool:
        """Whether one has failed."""
        return states.FAILURE in self._states()

    def completed_count(self) -> int:
        """How many have ended well."""
        return self._states().count(states.SUCCESS)

    def maybe_throw(self, callback: Callable[[str, Any], Any] | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first that has failed."""
        self._look()
        for member in self.results:
            member.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    @property
    def supports_native_join(self) -> bool:
        """It does: Celery's name for waiting for all at once."""
        return True

    # ------------------------------------------------------------ doing

    def forget(self) -> None:
        """Drop the records of all."""
        for member in self.results:
            member.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
        *,
        by: str | None = None,
        reason: str = "",
    ) -> Any:
        """Let no worker run these tasks: see ``AsyncResult.revoke``. They are written in one step."""
        ids = [leaf.id for leaf in self._leaves()]
        how = {"terminate": terminate, "signal": signal, "by": by, "reason": reason}
        return self.app.control.revoke(ids, reply=wait, timeout=timeout, **how)

    # ------------------------------------------------------------ as a list

    def add(self, result: Any) -> None:
        """Add a member unless it is one."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Remove a member, or the one with that id. Raises ``KeyError`` when there is none."""
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Remove a member if it is one."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add those that are no members yet."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Remove all members."""
        self.results[:] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __bool__(self) -> bool:
        return bool(self.results)

    def __eq__(self, other: object) -> bool:
        return other.results == self.results if isinstance(other, ResultSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # members come and go

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(member.id for member in self.results)}]>"


class GroupResult(ResultSet[R]):
    """The results of a group's tasks, in their order, under the group's id."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - Celery's name
        results: Iterable[Any] = (),
        parent: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(results, **kwargs)
        self.id: str = id  # type: ignore[assignment]
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        """Its members."""
        return self.results

    def as_tuple(self) -> tuple[Any, list[Any]]:
        """``((id, parent's tuple or None), [members' tuples])``: what ``result_from_tuple`` reads."""
        parent = self.parent.as_tuple() if self.parent is not None else None
        return (self.id, parent), [member.as_tuple() for member in self.results]

    def as_list(self) -> list[str]:
        """Its id and those of its parents."""
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    def save(self, backend: Any = None) -> Any:
        """Keep which tasks belong to it, for ``restore`` in another process."""
        return (backend or self.backend).save_group(self.id, self)

    def delete(self, backend: Any = None) -> None:
        """Forget what ``save`` has kept; the members' records stay."""
        (backend or self.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult[Any] | None:  # noqa: A002
        """The group that was saved under that id, None when there is none."""
        found = (backend or app_or_default(app).backend).restore_group(id)
        return found if isinstance(found, GroupResult) else None

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return (other.id, other.results, other.parent) == (self.id, self.results, self.parent)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(member.id for member in self.results)}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        # As with single results, connections do not travel: the current app's backend is asked.
        return type(self), (self.id, self.results, self.parent)


def _value_of(meta: Meta, propagate: bool) -> Any:
    value = meta["result"]
    if propagate and meta["status"] in states.PROPAGATE_STATES:
        raise value if isinstance(value, BaseException) else Exception(value)
    return value
