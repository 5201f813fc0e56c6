"""The result of one task: what ``delay()`` returns. A terminal record is read once and kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Generic, NoReturn, TypeVar

from celeriac import states
from celeriac.client import records
from celeriac.client.current import app_or_default
from celeriac.client.joining import assert_will_not_block
from celeriac.client.many import present
from celeriac.client.records import Meta
from celeriac.exceptions import IncompleteStream, TimeoutError  # noqa: A004 - Celery's name
from celeriac.result.graph import DependencyGraph

__all__ = ["AsyncResult", "ResultBase", "result_from_tuple"]

R = TypeVar("R")

#: Seconds between two looks at the steps before the one that is waited for.
_LOOK_AT_PARENTS = 1.0


class ResultBase:
    """Base of all results."""

    #: Result of what came before it in a chain: of a task, or of a group.
    parent: Any = None
    id: str


def _stored(key: str, doc: str) -> property:
    """A property with a field of the record."""
    return property(lambda result: result._get_task_meta().get(key), doc=doc)


class AsyncResult(ResultBase, Generic[R]):
    """The result of one task, to come or there.

    Args:
        id: the task's id.
        backend: where results are; None: the app's ``backend``.
        task_name: not used; Celery's signature.
        app: None: the current app.
        parent: result of the task before it in a chain.
    """

    #: Raised by ``get``, as a name at hand.
    TimeoutError = TimeoutError

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        backend: Any = None,
        task_name: str | None = None,
        app: Any = None,
        parent: Any = None,
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult requires a task id, not None")
        self.id = id
        self.app = app if app is not None else app_or_default(None)
        self.parent = parent
        #: The task stores no result: ``get`` returns None at once.
        self.ignored: bool | None = False
        self._backend = backend
        self._cache: Meta | None = None
        self._then: list[tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] | None = None

    # ------------------------------------------------------------ waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, R], Any] | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Wait for the task and return its result.

        Args:
            timeout: seconds; None: for ever.
            propagate: raise the task's exception; False: return it.
            interval: seconds between calls of ``on_interval``. Nothing is polled.
            no_ack: not used; Celery's signature.
            follow_parents: raise the exception of an earlier step of the chain, too.
            callback: called with id and result.
            on_message: called with the record when it changes.
            disable_sync_subtasks: refuse to wait inside a task.

        Raises:
            TimeoutError: it took longer than ``timeout``.
            NotImplementedError: there is no result backend.
            RuntimeError: called inside a task.
            OperationalError: the result backend cannot be reached.
            Exception: what the task raised, rebuilt when its class is a builtin or registered, else ``RemoteError``.
        """
        if self.ignored:
            return None  # type: ignore[return-value]
        if disable_sync_subtasks:
            assert_will_not_block()
        meta = self._cache
        if meta is None:
            backend = self.backend
            if (
                on_message is None
                and on_interval is None
                and (self.parent is None or not (follow_parents and propagate))
            ):
                meta = records.wait(backend.reader, self.id, self.app.conf, timeout=timeout)
            else:
                meta = self._wait_closely(follow_parents and propagate, timeout, interval, on_message, on_interval)
            self._keep(meta)
        value = meta["result"]
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            if follow_parents:
                self._raise_earlier()
            self._raise(meta)
        if callback is not None:
            callback(self.id, value)
        return value  # type: ignore[no-any-return]

    wait = get

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        """``get`` for coroutines: the event loop goes on meanwhile. Allowed inside ``async def`` tasks."""
        if self.ignored:
            return None  # type: ignore[return-value]
        meta = self._cache
        if meta is None:
            meta = await records.awaiter(self.backend, self.app.conf).wait(self.id, timeout=timeout)
            self._keep(meta)
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            self._raise(meta)
        return meta["result"]  # type: ignore[no-any-return]

    def _wait_closely(
        self,
        follow_parents: bool,
        timeout: float | None,
        interval: float,
        on_message: Callable[[Meta], Any] | None,
        on_interval: Callable[[], Any] | None,
    ) -> Meta:
        """Wait while looking at earlier steps now and then, and telling callbacks.

        Whoever fails a step fails those behind it; earlier steps are looked at because older workers may not have.
        """
        earlier = {leaf.id: leaf for leaf in self._earlier()} if follow_parents else {}
        backend, conf = self.backend, self.app.conf

        def changed(task_id: str) -> None:
            if task_id:
                if on_message is not None:
                    on_message(self._get_task_meta())
                return
            for leaf_id, meta in present(backend.reader, list(earlier), conf):
                leaf = earlier.pop(leaf_id)
                leaf._keep(meta)
                leaf.maybe_throw()
            if on_interval is not None:
                on_interval()

        if on_interval is None:
            interval = _LOOK_AT_PARENTS
        meta = records.wait(
            backend.reader,
            self.id,
            conf,
            timeout=timeout,
            interval=interval if on_interval is not None or earlier else None,
            on_change=changed,
        )
        if on_message is not None:
            on_message(meta)
        return meta

    def _raise_earlier(self) -> None:
        """Raise what the first step that failed has raised: the cause of this one's failure."""
        earlier = {leaf.id: leaf for leaf in self._earlier()}
        if earlier:
            for leaf_id, meta in present(self.backend.reader, list(earlier), self.app.conf):
                earlier[leaf_id]._keep(meta)
        for leaf in reversed(list(self._earlier(known=True))):
            leaf.maybe_throw()

    def _earlier(self, *, known: bool = False) -> Iterator[AsyncResult[Any]]:
        """The single results among its parents, the last first, whose end is not known yet; or those that are."""
        node = self.parent
        while node is not None:
            leaves = list(node._leaves()) if hasattr(node, "_leaves") else [node]
            yield from (leaf for leaf in reversed(leaves) if (leaf._cache is not None) is known and not leaf.ignored)
            node = node.parent

    def _raise(self, meta: Meta) -> NoReturn:
        exc = meta["result"]
        if not isinstance(exc, BaseException):
            exc = Exception(exc)
        raise exc

    def then(
        self,
        callback: Callable[[AsyncResult[R]], Any],
        on_error: Callable[[Any], Any] | None = None,
        weak: bool = False,
    ) -> AsyncResult[R]:
        """Call ``callback(result)``, or ``on_error(exception)``, once this result is known to be there.

        It becomes known when it is asked for: nothing watches in the background.
        """
        if self._cache is not None:
            self._tell(callback, on_error, self._cache)
        else:
            self._then = [*(self._then or ()), (callback, on_error)]
        return self

    def _tell(self, callback: Callable[[Any], Any], on_error: Callable[[Any], Any] | None, meta: Meta) -> None:
        if meta["status"] in states.PROPAGATE_STATES and on_error is not None:
            on_error(meta["result"])
        else:
            callback(self)

    # ------------------------------------------------------------ asking

    @property
    def backend(self) -> Any:
        """Where results are: its ``reader`` is a ``Reader``."""
        return self._backend if self._backend is not None else self.app.backend

    @backend.setter
    def backend(self, backend: Any) -> None:
        self._backend = backend

    def _get_task_meta(self) -> Meta:
        if self._cache is not None:
            return self._cache
        meta = records.fetch(self.backend.reader, self.id, self.app.conf)
        if meta is None:
            return {"status": states.PENDING, "result": None, "traceback": None, "children": None, "task_id": self.id}
        if meta["status"] in states.READY_STATES:
            self._keep(meta)
        return meta

    def _keep(self, meta: Meta) -> None:
        self._cache = meta
        if self._then:
            waiting, self._then = self._then, None
            for callback, on_error in waiting:
                self._tell(callback, on_error, meta)

    @property
    def state(self) -> str:
        """PENDING (or unknown), STARTED, RETRY, SUCCESS, FAILURE, REVOKED, or a state of the task's own."""
        return self._get_task_meta()["status"]  # type: ignore[no-any-return]

    status = state

    @property
    def result(self) -> Any:
        """The return value; the exception when it failed; the meta data of a state of the task's own."""
        return self._get_task_meta()["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """The worker's traceback of a failure, as text."""
        return self._get_task_meta().get("traceback")

    @property
    def children(self) -> list[Any] | None:
        """Results of the tasks that this one has sent."""
        children = self._get_task_meta().get("children")
        if not isinstance(children, (list, tuple)):
            return None
        return [result for child in children for result in _children_of(child, self.app)]

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether the task has ended well."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether the task has failed."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether there is a record, of whatever state: PENDING is also what unknown ids are."""
        return self._cache is not None or records.fetch(self.backend.reader, self.id, self.app.conf) is not None

    def maybe_throw(self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None) -> Any:
        """Raise the task's exception if it has failed, else return what ``result`` is."""
        meta = self._get_task_meta()
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            self._raise(meta)
        if callback is not None:
            callback(self.id, meta["result"])
        return meta["result"]

    maybe_reraise = maybe_throw

    @property
    def task_id(self) -> str:
        """The id."""
        return self.id

    @task_id.setter
    def task_id(self, task_id: str) -> None:
        self.id = task_id

    name = _stored("name", "Name of the task (with ``result_extended``, like the next five).")
    args = _stored("args", "Arguments of the call.")
    kwargs = _stored("kwargs", "Keyword arguments of the call.")
    worker = _stored("worker", "Name of the node that ran it.")
    retries = _stored("retries", "Which attempt it was, from 0.")
    queue = _stored("queue", "The queue it came from.")

    @property
    def date_done(self) -> datetime | None:
        """When it ended (always stored)."""
        done = self._get_task_meta().get("date_done")
        return datetime.fromisoformat(done) if isinstance(done, str) else done

    # ------------------------------------------------------------ the tree

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, AsyncResult[Any]]]:
        """``(parent, result)`` of this and of what it and its descendants have sent, breadth first.

        Raises ``IncompleteStream`` at one that is not ready, unless ``intermediate``.
        """
        pending: deque[tuple[Any, AsyncResult[Any]]] = deque([(None, self)])
        while pending:
            parent, node = pending.popleft()
            yield parent, node
            if node.ready():
                pending.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[AsyncResult[Any], Any]]:
        """``(result, value)`` of this and its descendants, waiting for each; ``kwargs`` are those of ``get``."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**kwargs)

    @property
    def graph(self) -> DependencyGraph:
        """``build_graph()``: raises ``IncompleteStream`` as long as something in it is not ready."""
        return self.build_graph()

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """This and its descendants as a graph; ``intermediate`` takes in those that are not ready.

        ``formatter`` is Celery's and not used.
        """
        graph = DependencyGraph()
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    def get_leaf(self) -> Any:
        """The value of the last descendant."""
        value = None
        for _, node in self.iterdeps():
            value = node.get()
        return value

    def as_tuple(self) -> tuple[Any, None]:
        """``((id, parent's tuple or None), None)``: what ``result_from_tuple`` reads."""
        return (self.id, self.parent.as_tuple() if self.parent is not None else None), None

    def as_list(self) -> list[str]:
        """Its id and those of its parents."""
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    # ------------------------------------------------------------ doing

    def forget(self) -> None:
        """Drop the record, and those of the steps before."""
        self._cache = None
        if self.parent is not None:
            self.parent.forget()
        records.forget(self.backend.reader, self.id, self.app.conf)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Tell all workers not to run the task; with ``terminate`` to end it, if it runs, by ``signal`` (TERM).

        ``wait`` waits ``timeout`` seconds for their replies and returns these.
        """
        return self.app.control.revoke(self.id, terminate=terminate, signal=signal, reply=wait, timeout=timeout)

    # ------------------------------------------------------------ as a value

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __copy__(self) -> AsyncResult[R]:
        return type(self)(self.id, self._backend, None, self.app, self.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        # Connections do not travel: where it is unpickled, the current app's backend is asked.
        return self.id, None, None, None, self.parent


def result_from_tuple(r: Any, app: Any = None) -> Any:
    """A result from ``as_tuple``; a result comes back as it is. Raises ``TypeError``, ``ValueError`` or ``LookupError``
    for what is no result tuple."""
    if isinstance(r, ResultBase):
        return r
    app = app_or_default(app)
    head, members = r
    task_id, parent = head if isinstance(head, (list, tuple)) else (head, None)
    if parent:
        parent = result_from_tuple(parent, app)
    if members is not None:
        return app.GroupResult(task_id, [result_from_tuple(member, app) for member in members], parent=parent or None)
    return app.AsyncResult(task_id, parent=parent or None)


def _children_of(child: Any, app: Any) -> list[Any]:
    """The result in a stored child; nothing for what is none."""
    try:
        return [child] if isinstance(child, ResultBase) else [result_from_tuple(child, app)]
    except (TypeError, ValueError, LookupError):
        return []
