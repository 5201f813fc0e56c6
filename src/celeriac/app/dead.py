"""``app.dead_letters``: look at what could not be done, send it again, or forget it.

Sits on the blocking ``DeadLetters`` port and the result backend; what a letter becomes is ``codec/letters.py``'s. The
command line (``celeriac dead``) calls nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from celeriac import states
from celeriac.client import resolver
from celeriac.client.connections import PerProcess
from celeriac.codec import letters
from celeriac.codec.letters import Edit, Letter
from celeriac.codec.results import decode_result, encode_result
from celeriac.exceptions import CeleryError, DecodeError
from celeriac.model.dead import ALL, DeadFilter, Replay
from celeriac.model.message import Malformed, Message
from celeriac.model.settle import DeadReason, StoredResult
from celeriac.ports import DeadLetters as Port
from celeriac.result import AsyncResult

__all__ = ["DeadLetterNotFound", "DeadLetterRefused", "DeadLetters", "Letter", "Retried", "Skipped", "When"]

#: Seconds that one step may take, and letters that one step sends again or drops.
_TIMEOUT = 10.0
_BATCH = 200
_PAGE = 500

#: A moment, or how long ago it was: as a timedelta or in seconds.
When = datetime | timedelta | float


class DeadLetterNotFound(CeleryError, LookupError):
    """No dead letter of that key or id, or several."""


class DeadLetterRefused(CeleryError, ValueError):
    """A dead letter that cannot be sent again like this."""


class Skipped(Struct, frozen=True):
    """A letter that was not sent again, and why."""

    letter: Letter
    why: str


class Retried(Struct, frozen=True):
    """What ``retry_all`` has done."""

    #: Ids of the tasks that were sent again.
    ids: tuple[str, ...]
    skipped: tuple[Skipped, ...]


class DeadLetters:
    """The dead letters of an app's broker. Everywhere ``which`` is a letter, its key, the id of its task, or the
    beginning of either that no other letter has. All raise ``OperationalError`` when the broker cannot be reached.

    Filters, all of which must fit: ``task`` (``*`` and ``?`` for any characters), ``queue``, ``reason`` (a
    ``DeadReason``), ``exception`` (part of its class or text, in any case), ``since`` and ``older_than`` (a time, or how
    long ago as a timedelta or in seconds).
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._port: PerProcess[Port] = PerProcess(
            lambda: resolver.dead_letters(app.broker_url, resolver.adapter_options(app.conf))
        )

    # ------------------------------------------------------------ looking

    def iterate(
        self,
        *,
        task: str = "",
        queue: str = "",
        reason: str = "",
        exception: str = "",
        since: When | None = None,
        older_than: When | None = None,
    ) -> Iterator[Letter]:
        """All that fit, the newest first, read page by page while one goes on."""
        return self._each(_filter(task, queue, reason, exception, since, older_than))

    def list(
        self,
        *,
        task: str = "",
        queue: str = "",
        reason: str = "",
        exception: str = "",
        since: When | None = None,
        older_than: When | None = None,
        limit: int = 100,
    ) -> Sequence[Letter]:
        """The newest that fit, up to ``limit``."""
        found = self._each(_filter(task, queue, reason, exception, since, older_than), limit)
        return tuple(letter for letter, _ in zip(found, range(limit), strict=False))

    def count(
        self,
        *,
        task: str = "",
        queue: str = "",
        reason: str = "",
        exception: str = "",
        since: When | None = None,
        older_than: When | None = None,
    ) -> int:
        """How many fit."""
        wanted = _filter(task, queue, reason, exception, since, older_than)
        return sum(len(page) for page in self._pages(wanted, _PAGE))

    def get(self, which: str | Letter) -> Letter:
        """One letter. Raises ``DeadLetterNotFound`` when there is none, or when several fit."""
        if isinstance(which, Letter):
            which = which.key
        if not which:
            raise DeadLetterNotFound("no dead letter has an empty id")
        (record,) = self._port.get().get([which], timeout=_TIMEOUT)
        if record is not None:
            return self._letter(record)
        found = [*self._each(DeadFilter(ids=(which,)))]
        exact = [each for each in found if each.id == which]
        found = exact or found
        if not found:
            raise DeadLetterNotFound(f"no dead letter has the id or key {which!r}: look at the list")
        if len(found) > 1:
            keys = ", ".join(each.key for each in found[:5])
            raise DeadLetterNotFound(f"{len(found)} dead letters fit {which!r}: name one by its key: {keys}")
        return found[0]

    # ------------------------------------------------------------ sending again

    def retry(
        self,
        which: str | Letter,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        countdown: float | None = None,
    ) -> AsyncResult[Any]:
        """Send one letter again under its task's id, and drop it, in one step; returns the task's result.

        Args:
            args: other positional arguments.
            kwargs: other keyword arguments.
            queue: another queue.
            countdown: seconds from now before which it does not start.

        Raises:
            DeadLetterNotFound: there is no such letter, or no longer.
            DeadLetterRefused: it is malformed, or cannot be encoded with these arguments.
            TypeError: the arguments do not fit the task's signature, if the task is known here.
        """
        dead = self.get(which)
        edit = Edit(args=args, kwargs=kwargs, queue=queue, countdown=countdown)
        if self._send([dead], edit, [], strict=True) != [dead.id]:
            raise DeadLetterNotFound(f"dead letter {dead.key} is gone: somebody has sent it again or dropped it")
        result: AsyncResult[Any] = self._app.AsyncResult(dead.id)
        return result

    def retry_all(
        self,
        *,
        task: str = "",
        queue: str = "",
        reason: str = "",
        exception: str = "",
        since: When | None = None,
        older_than: When | None = None,
        limit: int | None = None,
        to_queue: str | None = None,
        countdown: float | None = None,
    ) -> Retried:
        """Send all that fit again, the newest first, up to ``limit``; each letter in one step, many at a time.

        What dies again meanwhile is not sent once more. What cannot be sent again is skipped and told.
        """
        wanted = _filter(task, queue, reason, exception, since, older_than)
        edit = Edit(queue=to_queue, countdown=countdown)
        sent: list[str] = []
        skipped: list[Skipped] = []
        for page in self._pages(wanted, _BATCH):
            batch = page if limit is None else page[: limit - len(sent)]
            sent += self._send(batch, edit, skipped)
            if limit is not None and len(sent) >= limit:
                break
        return Retried(tuple(sent), tuple(skipped))

    def _send(
        self, batch: Sequence[Letter], edit: Edit, skipped: list[Skipped], *, strict: bool = False
    ) -> list[str]:
        """Send letters again; returns the ids of those that were there. ``strict``: raise what cannot be done."""
        if edit.queue is not None:
            self._app.sender.router.queues[edit.queue]  # raises QueueNotFound where queues must be declared
        now = time.time()
        replays: dict[str, tuple[Letter, Replay]] = {}
        states_of: dict[str, str] = {}
        for dead in batch:
            try:
                message = self._message(dead)
                replay = Replay(key=dead.key, message=self._replayed(dead, message, edit, now))
            except DeadLetterRefused as error:
                if strict:
                    raise
                skipped.append(Skipped(dead, str(error)))
                continue
            replays[dead.key] = (dead, replay)
            states_of[dead.id] = states.RETRY
            for task_id in letters.unborn(self._embed(message)):
                states_of.setdefault(task_id, states.PENDING)
        if not replays:
            return []
        self._reopen_results(states_of)
        gone = set(self._port.get().replay([replay for _, replay in replays.values()], timeout=_TIMEOUT))
        skipped += (Skipped(dead, "it is gone") for key, (dead, _) in replays.items() if key in gone)
        return [dead.id for key, (dead, _) in replays.items() if key not in gone]

    def _message(self, dead: Letter) -> Message:
        message = letters.message_of(dead, max_bytes=self._app.conf.max_message_bytes)
        if isinstance(message, Malformed):
            raise DeadLetterRefused(
                f"dead letter {dead.key} is no task message ({message.reason}): drop it, or send the task anew"
            )
        return message

    def _replayed(self, dead: Letter, message: Message, edit: Edit, now: float) -> Message:
        conf = self._app.conf
        accept = frozenset(conf.accept_content)
        if edit.changes_arguments:
            self._check(dead, message, edit)
        try:
            return letters.replayed(
                dead, message, edit, now=now, accept=accept, max_bytes=conf.max_message_bytes
            )
        except CeleryError as error:
            raise DeadLetterRefused(f"dead letter {dead.key} cannot get other arguments: {error}") from error

    def _check(self, dead: Letter, message: Message, edit: Edit) -> None:
        """The new arguments against the signature, when the task is known here. Raises ``TypeError``."""
        task = self._app.tasks.get(dead.task)
        check = getattr(task, "argument_check", None)
        old = letters.arguments(
            message,
            accept=frozenset(self._app.conf.accept_content),
            max_bytes=self._app.conf.max_message_bytes,
        )
        if check is not None and old is not None:
            args = old[0] if edit.args is None else edit.args
            kwargs = old[1] if edit.kwargs is None else edit.kwargs
            check(*args, **kwargs)

    def _embed(self, message: Message) -> Any:
        conf = self._app.conf
        found = letters.arguments(
            message, accept=frozenset(conf.accept_content), max_bytes=conf.max_message_bytes
        )
        return None if found is None else found[2]

    def _reopen_results(self, states_of: Mapping[str, str]) -> None:
        """Say of tasks that had failed that they go on, before their messages are there.

        Whoever waits goes on waiting; and a worker that meets such a message twice does not take it for done. A record
        of success is not touched. After a crash behind this step the letters are still there.
        """
        backend = self._app.backend
        if not backend.enabled:
            return
        conf, ids = self._app.conf, list(states_of)
        again: list[StoredResult] = []
        for task_id, data in zip(ids, backend.reader.get(ids, timeout=_TIMEOUT), strict=True):
            if data is None:
                continue
            try:
                old = decode_result(
                    data, accept=frozenset(conf.result_accept_content), serializer=conf.result_serializer
                )
            except DecodeError:
                old = {"status": states.FAILURE, "result": None, "traceback": None}
            if old["status"] not in states.PROPAGATE_STATES:
                continue
            fails = states_of[task_id] == states.RETRY
            body = encode_result(
                task_id=task_id,
                state=states_of[task_id],
                result=old["result"] if fails else None,
                traceback=old["traceback"] if fails else None,
                group_id=old.get("group_id"),
                parent_id=old.get("parent_id"),
                serializer=conf.result_serializer,
            )
            again.append(StoredResult(task_id, body, False, conf.seconds("result_expires") or None))
        if again:
            backend.reader.put(again, timeout=_TIMEOUT)

    # ------------------------------------------------------------ forgetting

    def drop(self, which: str | Letter) -> None:
        """Forget one letter; its task will never run. Raises ``DeadLetterNotFound``."""
        self._port.get().drop([self.get(which).key], timeout=_TIMEOUT)

    def drop_all(
        self,
        *,
        task: str = "",
        queue: str = "",
        reason: str = "",
        exception: str = "",
        since: When | None = None,
        older_than: When | None = None,
        limit: int | None = None,
    ) -> int:
        """Forget all that fit, the newest first, up to ``limit``; returns how many."""
        wanted = _filter(task, queue, reason, exception, since, older_than)
        dropped = 0
        for page in self._pages(wanted, _BATCH):
            keys = [each.key for each in (page if limit is None else page[: limit - dropped])]
            dropped += self._port.get().drop(keys, timeout=_TIMEOUT)
            if limit is not None and dropped >= limit:
                break
        return dropped

    # ------------------------------------------------------------ inside

    def arguments(self, dead: Letter) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
        """Positional and keyword arguments of a letter; None when they cannot be decoded here."""
        conf = self._app.conf
        message = letters.message_of(dead, max_bytes=conf.max_message_bytes)
        if isinstance(message, Malformed):
            return None
        found = letters.arguments(
            message, accept=frozenset(conf.accept_content), max_bytes=conf.max_message_bytes
        )
        return None if found is None else (found[0], found[1])

    def close(self) -> None:
        """Give the connections back; a later call opens new ones."""
        self._port.close()

    def _each(self, wanted: DeadFilter, limit: int = _PAGE) -> Iterator[Letter]:
        for page in self._pages(wanted, min(limit, _PAGE)):
            yield from page

    def _pages(self, wanted: DeadFilter, limit: int) -> Iterator[Sequence[Letter]]:
        """Pages of letters that are wanted, none of them empty."""
        after = ""
        while True:
            page = self._port.get().page(wanted, limit=limit, after=after, timeout=_TIMEOUT)
            if page.records:
                yield [self._letter(record) for record in page.records]
            after = page.after
            if not after:
                return

    def _letter(self, record: Any) -> Letter:
        return letters.letter(record, max_bytes=self._app.conf.max_message_bytes)


def _filter(
    task: str, queue: str, reason: str, exception: str, since: When | None, older_than: When | None
) -> DeadFilter:
    """Raises ``ValueError`` for a reason that does not exist."""
    if not (task or queue or reason or exception or since is not None or older_than is not None):
        return ALL
    now = time.time()
    return DeadFilter(
        task=task,
        queue=queue,
        reason=DeadReason(reason).value if reason else "",
        exception=exception,
        since=None if since is None else _moment(since, now),
        before=None if older_than is None else _moment(older_than, now),
    )


def _moment(when: When, now: float) -> float:
    if isinstance(when, datetime):
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    return now - (when.total_seconds() if isinstance(when, timedelta) else when)
