"""From a call to a message on the broker: what ``delay()`` does behind the façade.

``message`` turns a task name, arguments and options into a ``Message`` (Celery's protocol 2, headers in its order),
``send`` publishes. Everything that follows from the task's name and declared options alone is worked out once and kept.
Knows neither tasks nor apps; called by ``Task.apply_async`` and ``Celery.send_task``. Thread-safe; survives forks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from celeriac import signals
from celeriac.client import resolver
from celeriac.client.again import send_again
from celeriac.client.announcing import EMBED_KEYS, announce_sent
from celeriac.client.connections import PerProcess
from celeriac.client.current import request_var, worker_request
from celeriac.client.payloads import payloads_of
from celeriac.client.prepared import PER_CALL as _PER_CALL
from celeriac.client.prepared import Prepared, followers, prepare, with_headers
from celeriac.client.replies import Replies
from celeriac.client.routes import ROUTING_SETTINGS, Router
from celeriac.client.times import earliest, latest
from celeriac.client.transactions import outlet_of, relayed
from celeriac.codec.body import EncodedBody, encode_body
from celeriac.codec.envelope import new_id
from celeriac.codec.json import plain
from celeriac.codec.redaction import hides
from celeriac.codec.saferepr import saferepr
from celeriac.codec.signing import signer_of
from celeriac.exceptions import EncodeError, MessageTooLarge, OperationalError, QueueNotFound
from celeriac.model.ledger import LOCK
from celeriac.model.message import Message
from celeriac.ports import Publisher

__all__ = ["Collector", "Sender"]

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = {}
#: Combinations of task and options that are remembered.
_REMEMBERED = 10_000
_REPR_LENGTH = 1024
#: Bodies up to so many bytes are never looked at again.
_SMALL = 1024
#: Options that say when, and those that say what follows.
_TIMES = frozenset({"countdown", "eta", "expires"})
_FOLLOWED = frozenset({"link", "link_error", *EMBED_KEYS})
#: Options of a group's member, which may be one of a hundred thousand.
_MEMBER = frozenset({"task_id", "group_id", "group_index", "chord"})


class Collector(Protocol):
    """A producer that takes messages instead of a broker: the worker's, which sends them with the task's plan."""

    def collect(self, message: Message) -> None: ...


class Sender:
    """Makes and sends the messages of one app."""

    def __init__(self, conf: resolver.Conf, *, default_url: Callable[[], str]) -> None:
        self.conf = conf
        #: Makes the broker's URL when the settings have none.
        self.default_url = default_url
        #: Where results come to with ``rpc://``.
        self.replies = Replies(conf)
        self._oid = ""
        #: What countdowns count from, seconds since the epoch: this machine's clock; in a worker the broker's.
        self.now: Callable[[], float] = time.time
        self._pid = 0
        self._hidden = hides()
        self._origin = ""
        self._zone: tzinfo | None = None
        #: Tasks with large messages that were told of.
        self._warned: set[str] = set()
        self._router: Router | None = None
        self._publisher: PerProcess[Publisher] = PerProcess(self._open)
        conf.bind_to(self._settings_changed)

    # ------------------------------------------------------------ making

    def message(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] = _NOTHING,
        *,
        task: Any = None,
        call: Mapping[str, Any] | None = None,
    ) -> Message:
        """The message of one call. ``options`` are those of ``apply_async`` under Celery's names, the call's over the
        task's; None means not given. ``task`` is what function routers get. ``call`` has those of ``PER_CALL``, when
        the caller has told them apart.

        Raises ``TypeError`` or ``ValueError`` for arguments and times that cannot be, ``EncodeError`` naming the task
        and the type that cannot be serialized, ``MessageTooLarge``, ``QueueNotFound``, ``ImproperlyConfigured``.
        """
        if args is None:
            args = ()
        elif not isinstance(args, (list, tuple)):
            raise TypeError("task args must be a list or tuple")
        if kwargs is None:
            kwargs = _NOTHING
        elif type(kwargs) is not dict and not isinstance(kwargs, Mapping):
            raise TypeError("task keyword arguments must be a mapping")
        if call is None:
            call = _NOTHING
        if not _PER_CALL.isdisjoint(options):
            call = {key: value for key, value in options.items() if key in _PER_CALL}
            options = {key: value for key, value in options.items() if key not in _PER_CALL}
        prepared = self._prepared(name, args, kwargs, options, task)
        headers = prepared.headers.copy()
        headers["id"] = headers["root_id"] = call.get("task_id") or new_id()
        if (call and not _MEMBER.issuperset(call)) or prepared.call or request_var.get() is not None:
            return self._particular(prepared, {**prepared.call, **call}, headers, args, kwargs)
        levels, hidden = self.conf.task_repr_maxlevels, self._hidden
        headers["argsrepr"] = saferepr(args, _REPR_LENGTH, levels, hidden)
        headers["kwargsrepr"] = saferepr(kwargs, _REPR_LENGTH, levels, hidden) if kwargs else "{}"
        embed = None
        if call:
            headers["group"], headers["group_index"] = call.get("group_id"), call.get("group_index")
            embed = {"chord": call["chord"]} if call.get("chord") else None
        return self._finish(prepared, headers, args, kwargs, embed, self._oid, None, None)

    def _prepared(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], task: Any
    ) -> Prepared:
        """What follows from name and options; kept among the addresses, which are dropped when a queue changes."""
        if os.getpid() != self._pid:
            self._enter_process()
        router = self._router or self.router
        known = router.queues.addresses
        try:
            key = (name, *options.items())
            found: Prepared | None = known.get(key)
        except TypeError:  # headers, stamps: such options are not remembered
            if options.get("headers") and router.by_name_only:
                base = self._prepared(name, args, kwargs, {**options, "headers": ()}, task)
                return with_headers(base, name, options["headers"])
            key, found = None, None
        if found is not None:
            return found
        given = dict(options)
        to = router.resolve(given, given.get("route_name") or name, args, kwargs, task)
        queues = (to.queue,) if not to.exchange else router.queues.bound_to(to.exchange, to.routing_key)
        if not queues:
            raise QueueNotFound(
                f"task {name}: no queue is bound to exchange {to.exchange!r} with key {to.routing_key!r}: "
                "declare one in task_queues"
            )
        prepared = prepare(name, given, to, queues[0], self.conf, origin=self._origin)
        if key is not None and router.by_name_only and not self.conf.task_inherit_parent_priority:
            if len(known) > _REMEMBERED:
                known.clear()
            known[key] = prepared
        return prepared

    def _particular(
        self,
        prepared: Prepared,
        call: Mapping[str, Any],
        headers: dict[str, Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Message:
        """A message with options of its own, or sent by a running task."""
        get = call.get
        root_id, parent_id = get("root_id"), get("parent_id")
        if not root_id or not parent_id:
            request = worker_request()
            if request is not None:
                root_id = root_id or request.root_id or request.id
                parent_id = parent_id or request.id
        headers["group"], headers["group_index"] = get("group_id"), get("group_index")
        headers["root_id"] = root_id or headers["id"]
        headers["parent_id"] = parent_id
        levels, hidden = self.conf.task_repr_maxlevels, self._hidden
        shown, shown_kwargs = get("argsrepr"), get("kwargsrepr")
        headers["argsrepr"] = saferepr(args, _REPR_LENGTH, levels, hidden) if shown is None else shown
        headers["kwargsrepr"] = saferepr(kwargs, _REPR_LENGTH, levels, hidden) if shown_kwargs is None else shown_kwargs
        due = expires = embed = None
        if not _TIMES.isdisjoint(call):
            now, zone = self.now(), self.zone
            headers["eta"], due = earliest(get("countdown"), get("eta"), now=now, zone=zone)
            headers["expires"], expires = latest(get("expires"), now=now, zone=zone)
        if not _FOLLOWED.isdisjoint(call):
            embed = followers(call)
        lock = get("lock")
        if lock is not None:
            headers[LOCK] = lock
        return self._finish(
            prepared, headers, args, kwargs, embed, get("reply_to") or self.replies.address, due, expires
        )

    def _finish(
        self,
        prepared: Prepared,
        headers: dict[str, Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        embed: Mapping[str, Any] | None,
        reply_to: str,
        due: float | None,
        expires: float | None,
    ) -> Message:
        to = prepared.to
        task_id: str = headers["id"]
        priority = prepared.priority
        if signals.before_task_publish.receivers:
            properties = self._announce(prepared, headers, args, kwargs, embed, reply_to)
            reply_to, priority = properties.get("reply_to") or "", properties.get("priority", priority)
            headers = plain(headers)
        try:
            body = encode_body(
                args,
                kwargs,
                embed,
                serializer=prepared.serializer,
                compression=prepared.compression,
                compression_min_bytes=self.conf.task_compression_min_bytes if prepared.compression else 0,
                max_bytes=self.conf.max_message_bytes,
            )
            if len(body.body) > _SMALL:
                body = self._large(headers["task"], body, due)
        except EncodeError as error:
            raise EncodeError(f"cannot send {headers['task']}: {error}") from error
        except MessageTooLarge as error:
            raise MessageTooLarge(f"cannot send {headers['task']}: {error}") from None
        if body.compression is not None:
            headers["compression"] = body.compression
        return Message(
            id=task_id,
            task=headers["task"],
            headers=headers,
            body=body.body,
            queue=prepared.queue,
            content_type=body.content_type,
            content_encoding=body.content_encoding,
            exchange=to.exchange,
            routing_key=to.routing_key,
            priority=priority or 0,
            correlation_id=task_id,
            reply_to=reply_to,
            delivery_mode=to.delivery_mode,
            due=due,
            expires=expires,
            retries=prepared.retries,
            time_limit=prepared.time_limit,
            soft_time_limit=prepared.soft_time_limit,
        )

    def _large(self, name: str, body: EncodedBody, due: float | None) -> EncodedBody:
        """A body that may belong into the payload store, or deserves a warning."""
        import logging  # 5 ms, for those who send much

        logger = logging.getLogger("celeriac.sender")
        size, conf = len(body.body), self.conf
        payloads = payloads_of(conf)
        if payloads is not None and size > payloads.min_bytes:
            try:
                return payloads.put_body(body, due)
            except OperationalError as error:
                if worker_request() is None:
                    raise
                # What follows a task that has done its work: it must not fail for this.
                logger.warning("The arguments of %s stay in its message: %s", name, error)
        if 0 < conf.task_message_warn_bytes < size and name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "Task %s is sent with %d bytes of arguments (more than task_message_warn_bytes=%d): pass a key to the "
                "data instead of the data, or set payload_store",
                name,
                size,
                conf.task_message_warn_bytes,
            )
        return body

    def _announce(
        self,
        prepared: Prepared,
        headers: dict[str, Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        embed: Mapping[str, Any] | None,
        reply_to: str,
    ) -> dict[str, Any]:
        """Let receivers of ``before_task_publish`` see the message and write into its headers; returns properties."""
        properties = {"correlation_id": headers["id"], "reply_to": reply_to, **prepared.others}
        if prepared.priority is not None:
            properties["priority"] = prepared.priority
        signals.before_task_publish.send(
            sender=headers["task"],
            body=(args, kwargs, embed or dict.fromkeys(EMBED_KEYS)),
            exchange=prepared.to.exchange,
            routing_key=prepared.to.routing_key,
            declare=[],
            headers=headers,
            properties=properties,
            retry_policy=dict(self.conf.task_publish_retry_policy),
        )
        return properties

    # ------------------------------------------------------------ settings

    @property
    def zone(self) -> tzinfo:
        """The app's time zone: header times are written in it, times without a zone are taken to be in it."""
        if self._zone is None:
            name = resolver.zone_name(self.conf)
            if name == "UTC":
                self._zone = UTC
            else:
                from zoneinfo import ZoneInfo

                self._zone = ZoneInfo(name)
        return self._zone

    @property
    def router(self) -> Router:
        """Queues and routes of the settings; made anew when these change."""
        if self._router is None:
            self._router = Router.from_settings(self.conf)
        return self._router

    @router.setter
    def router(self, router: Router) -> None:
        self._router = router

    def _settings_changed(self, names: Iterable[str]) -> None:
        self._zone = None
        self.replies.settings_changed()
        self._pid = 0  # what is worked out per process is worked out anew
        if self._router is not None:
            self._router.queues.addresses.clear()
            if not ROUTING_SETTINGS.isdisjoint(names):
                self._router = None

    def _enter_process(self) -> None:
        self._hidden = hides(tuple(self.conf.redact_names))
        pid = os.getpid()
        self._oid = self.replies.oid
        self._pid = pid
        self._origin = f"gen{pid}@{os.uname().nodename}"
        self.router.queues.addresses.clear()

    # ------------------------------------------------------------ sending

    def send(
        self,
        messages: Message | Sequence[Message],
        *,
        producer: Any = None,
        retry: bool | None = None,
        retry_policy: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Publish one message or many in one round trip; durable when it returns.

        A ``producer`` with ``collect`` gets them instead; inside ``app.transaction()`` the application's database,
        whose driver's errors come as they are. Tries again as ``retry_policy`` says (Celery's keys, over
        ``task_publish_retry_policy``), but never beyond ``timeout`` seconds in all (``broker_publish_timeout``).

        What may have been sent already is not sent again, for it might run twice.

        Raises ``OperationalError`` naming the broker, without its password; ``uncertain`` tells whether messages may
        have been sent.
        """
        messages = self.outgoing((messages,) if isinstance(messages, Message) else messages)
        collect = getattr(producer, "collect", None)
        if collect is not None:
            for message in messages:
                collect(message)
            return
        outlet = outlet_of(self.conf)
        if outlet is not None:
            outlet.put(messages)
            self.announce(messages)
            return
        limit = timeout or self.conf.seconds("broker_publish_timeout")
        deadline = time.monotonic() + limit
        publish = self._publisher.get().publish
        try:
            publish(messages, timeout=limit)
        except OperationalError as error:
            if error.uncertain or not (self.conf.task_publish_retry if retry is None else retry):
                raise self.named(error) from error
            self.again(lambda left: publish(messages, timeout=left), error, deadline, retry_policy)
        self.announce(messages)

    def stage(self, messages: Sequence[Message], stage: str) -> int:
        """Put messages aside that are to be sent together with more (``Publisher.stage``); returns how many, for an
        exchange may lead to several queues. Raises ``OperationalError``: nothing is sent then.

        Inside ``app.transaction()`` they are written at once: the commit is what sends them."""
        messages = self.outgoing(messages)
        outlet = outlet_of(self.conf)
        if outlet is not None:
            outlet.put(messages)
            return len(messages)
        try:
            self._publisher.get().stage(messages, stage=stage, timeout=self.conf.seconds("broker_publish_timeout"))
        except OperationalError as error:
            error.uncertain = False
            raise self.named(error) from error
        return len(messages)

    def launch(self, stage: str, count: int) -> None:
        """Send all that was put aside (``Publisher.launch``). Raises as ``send``."""
        if outlet_of(self.conf) is not None:
            return
        try:
            self._publisher.get().launch(stage, count=count, timeout=self.conf.seconds("broker_publish_timeout"))
        except OperationalError as error:
            raise self.named(error) from error

    def announce(self, messages: Sequence[Message]) -> None:
        """Tell receivers of ``after_task_publish``; of what a relay publishes it is the relay that tells."""
        if signals.after_task_publish.receivers and not relayed(self.conf):
            for message in messages:
                announce_sent(self.conf, message)

    def outgoing(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages as they are published: one for each queue that an exchange leads to, for brokers know queues
        only; signed where there is a key, now that their queues are certain."""
        # One message is what most calls send: without a generator.
        if messages[0].exchange if len(messages) == 1 else any(message.exchange for message in messages):
            bound_to = self.router.queues.bound_to
            copies = []
            for message in messages:
                queues = bound_to(message.exchange, message.routing_key) if message.exchange else ()
                copies.extend([replace(message, queue=queue) for queue in queues] or [message])
            messages = copies
        self.replies.expect(messages)
        signer = signer_of(self.conf)
        return messages if signer is None else [signer.sign(message) for message in messages]

    def again(
        self,
        send: Callable[[float], T],
        error: OperationalError,
        deadline: float,
        retry_policy: Mapping[str, Any] | None,
        *,
        uncertain: bool = False,
    ) -> T:
        """``send_again`` by the settings' policy and ``retry_policy`` over it."""
        policy = {**self.conf.task_publish_retry_policy, **(retry_policy or {})}
        try:
            return send_again(send, error, deadline, policy, uncertain=uncertain)
        except OperationalError as last:
            raise self.named(last) from last

    def named(self, error: OperationalError) -> OperationalError:
        """The error with the broker's URL in it, if its adapter has not put it there."""
        text = str(error)
        if "://" in text:
            return error
        named = OperationalError(f"{resolver.mask(self.url)}: {text}")
        named.uncertain = error.uncertain
        return named

    # ------------------------------------------------------------ the connection

    @property
    def url(self) -> str:
        """Where messages go, with its password."""
        return resolver.write_url(self.conf, self.default_url())

    @property
    def publisher(self) -> Publisher:
        """This process's connection pool, for what is not sending: purge and depth."""
        return self._publisher.get()

    def _open(self) -> Publisher:
        options = resolver.adapter_options(self.conf, self.url, queues=self.router.queues)
        if self.replies.queue is not None:
            options = replace(options, replies=self.replies.queue)
        return resolver.publisher(self.url, options)

    def close(self) -> None:
        """Give the connections back; the next call opens new ones. Idempotent."""
        self._publisher.close()
