"""The part of the app that sends tasks and waits for results. A base of ``Celery`` only."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from celeriac.app.amqp import AMQP, broker_info
from celeriac.app.backend import Backend
from celeriac.app.bulk import send_many
from celeriac.app.keyed import send_keyed
from celeriac.app.once import Steps
from celeriac.app.registry import TaskRegistry
from celeriac.canvas import Signature, signature
from celeriac.client import resolver
from celeriac.client.current import get_current_task, get_current_worker_task, worker_request
from celeriac.client.sender import Sender
from celeriac.conf.settings import Settings
from celeriac.conf.source import import_object
from celeriac.exceptions import AlwaysEagerIgnored
from celeriac.result import AsyncResult, GroupResult, ResultSet

if TYPE_CHECKING:
    from celeriac.app.dead import DeadLetters

__all__ = ["Sending"]


class Sending:
    """Messages, results and remote control of an app."""

    conf: Settings
    main: str | None

    _tasks: TaskRegistry
    _file: str | None
    _making: threading.RLock
    _sender: Sender | None = None
    _backend: Backend | None = None
    _task_steps: Steps | None = None
    _control: Any
    _dead_letters: Any = None
    _periodic_desk: Any = None
    _log: Any

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        task_type: Any = None,
        result_cls: Any = None,
        add_to_parent: bool = True,
        retry: bool | None = None,
        retry_policy: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task by name, known here or not. Options as in ``Task.apply_async``, which ends here."""
        if task_type is None:
            if self.conf.task_always_eager:
                import warnings

                warnings.warn(AlwaysEagerIgnored("task_always_eager has no effect on send_task"), stacklevel=2)
            task_type = self._tasks.get(name)
            if task_type is not None:
                options = {**task_type.send_defaults, **options}
        for key, value in (("task_id", task_id), ("link", link), ("link_error", link_error), ("shadow", shadow)):
            if value is not None:
                options[key] = value
        if producer is None:
            producer = options.get("publisher")
        rule, new = task_type.unique_rule if task_type is not None else None, True
        if rule is None and "idempotency_key" not in options and "idempotency_ttl" not in options:
            message = self.sender.message(name, args, kwargs, options, task=task_type)
            self.sender.send(message, producer=producer, retry=retry, retry_policy=retry_policy)
            task_id = message.id
        else:
            sent = send_keyed(
                self, name, args, kwargs, options, task=task_type, rule=rule, producer=producer, retry=retry,
                retry_policy=retry_policy,
            )  # fmt: skip
            task_id, new = sent.id, sent.new
        result = (result_cls or (task_type or self).AsyncResult)(task_id)
        result.ignored = options.get("ignore_result")
        if add_to_parent and new:
            self.add_trail(result)
        return cast("AsyncResult[Any]", result)

    def add_trail(self, result: Any) -> None:
        """Count ``result`` among the children of the task that a worker runs here, if any."""
        request = worker_request()
        if request is not None:
            request._task.add_trail(result)

    def send_many(
        self,
        signatures: Iterable[Signature[Any]],
        *,
        chunk: int = 1000,
        producer: Any = None,
        add_to_parent: bool = True,
        together: bool = False,
    ) -> list[AsyncResult[Any]]:
        """Send many signatures, one round trip per ``chunk`` of them. Returns their results, in order.

        ``signatures`` may be a generator: no more than ``chunk`` messages are in memory. An error ends it; what earlier
        chunks held is sent then. ``together=True`` sends all or none, however many: the broker puts them aside and
        makes them ready in one step, so none starts before the last one is there. ``add_to_parent=False``: a running
        task does not count them among its children. See ``Task.delay_many`` for many calls of one task.
        """
        return send_many(self, signatures, chunk, producer, add_to_parent, together)

    def transaction(self, connection: Any = None, *, using: str | None = None) -> AbstractContextManager[None]:
        """``with app.transaction(connection): task.delay(…)``: the task is sent if the transaction commits, else never.

        Inside the block everything that this app sends goes into the application's own database through its own
        connection: ``delay``, ``apply_async``, workflows, ``send_many``. Commit and rollback are the application's; the
        block does neither. What has a key (``idempotency_key``, unique tasks) is refused: use ``delay_on_commit``.

        Args:
            connection: of psycopg 3, psycopg2 or sqlite3, a Session or Connection of SQLAlchemy, or one of Django's.
            using: instead, the name of a database of Django.

        Raises ``ImproperlyConfigured`` when neither ``outbox_url`` nor the broker's URL names the database,
        ``TypeError`` for connections that cannot be written through; each send raises ``ImproperlyConfigured``
        when no transaction is open on a connection that commits by itself.
        """
        return cast(
            "AbstractContextManager[None]",
            import_object("celeriac.app.transaction:transaction")(self, connection, using),
        )

    @property
    def sender(self) -> Sender:
        """What turns calls into messages and publishes them."""
        sender = self._sender
        if sender is None:
            with self._making:
                if self._sender is None:
                    self.conf.bind_to(self._settings_changed)
                    self._sender = Sender(self.conf, default_url=self.default_url)
                sender = self._sender
        return sender

    def _settings_changed(self, names: frozenset[str]) -> None:
        if names & {"result_backend", "broker_url", "broker_write_url"}:
            self._backend = None
        self._dead_letters = None
        self._periodic_desk = None

    def default_url(self) -> str:
        """Where messages and results go when no broker is set: a SQLite file beside the app's module."""
        return resolver.default_url(self._file or self.main)

    @property
    def broker_url(self) -> str:
        """Where workers take messages from, with its password: the settings', else ``default_url``."""
        return resolver.read_url(self.conf, self.default_url())

    @property
    def backend_url(self) -> str | None:
        """Where results go, with its password; None: nowhere.

        An embedded broker (``sqlite``, ``memory``) keeps results too, unless ``result_backend`` says otherwise.
        """
        url = resolver.result_url(self.conf, self.default_url())
        if url is None and self.conf.result_backend is None:
            broker = resolver.write_url(self.conf, "")
            if broker.startswith(("sqlite:", "memory:")):
                return broker
        return url

    result_url = backend_url

    def broker_info(self) -> dict[str, Any]:
        """The broker's address without its password, as ``inspect stats`` shows it."""
        return broker_info(self.broker_url, self.conf)

    @property
    def amqp(self) -> AMQP:
        """Queues and routes."""
        return AMQP(self.sender)

    def select_queues(self, queues: Any = None) -> Any:
        """Keep only these queues for consuming."""
        return self.amqp.queues.select(queues)

    @property
    def oid(self) -> str:
        """Id of this app in this process, sent as ``reply_to``."""
        return self.sender.replies.oid

    @property
    def thread_oid(self) -> str:
        """As ``oid``: replies are not told apart by thread; in a task, where its own go (``Replies.address``)."""
        return self.sender.replies.address

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """A signature bound to this app: see ``celeriac.signature``."""
        return signature(*args, **{**kwargs, "app": self})

    # ------------------------------------------------------------ results, control, current task

    def AsyncResult(self, id: str, **kwargs: Any) -> AsyncResult[Any]:  # noqa: A002, N802 - Celery's names
        """The result of the task with that id."""
        return AsyncResult(id, app=self, **kwargs)

    def GroupResult(self, id: str | None = None, results: Iterable[Any] = (), **kwargs: Any) -> GroupResult[Any]:  # noqa: A002, N802
        """The results of a group's tasks under the group's id."""
        return GroupResult(id, results, app=self, **kwargs)

    def ResultSet(self, results: Iterable[Any], **kwargs: Any) -> ResultSet[Any]:  # noqa: N802
        """Any results, to be waited for together."""
        return ResultSet(results, app=self, **kwargs)

    @property
    def backend(self) -> Backend:
        """Result records, under the names of Celery's backends."""
        if self._backend is None:
            self._backend = Backend(self, self.backend_url)
        return self._backend

    @property
    def periodic(self) -> Any:
        """The periodic tasks, those of the settings and those stored beside the broker: ``celeriac.beat.Periodic``."""
        if self._periodic_desk is None:
            self._periodic_desk = import_object("celeriac.beat:Periodic")(self)
        return self._periodic_desk

    @property
    def dead_letters(self) -> DeadLetters:
        """What could not be done: to look at, to send again, to drop."""
        if self._dead_letters is None:
            self._dead_letters = import_object("celeriac.app.dead:DeadLetters")(self)
        return cast("DeadLetters", self._dead_letters)

    @property
    def task_steps(self) -> Steps:
        """What ``Task.once`` has recorded."""
        if self._task_steps is None:
            with self._making:
                if self._task_steps is None:
                    self._task_steps = Steps(self)
        return self._task_steps

    @property
    def control(self) -> Any:
        """Remote control of workers."""
        if self._control is None:
            self._control = import_object("celeriac.client.control:Control")(self)
        return self._control

    @property
    def log(self) -> Any:
        """Logging of programs."""
        if self._log is None:
            self._log = import_object("celeriac.app.log:Logging")(self)
        return self._log

    @property
    def current_task(self) -> Any:
        """The task that runs here, or None."""
        return get_current_task()

    @property
    def current_worker_task(self) -> Any:
        """The task that a worker runs here, or None; tasks called by tasks as functions do not count."""
        return get_current_worker_task()
