"""``app.dead_letters``: look at what could not be done, send it again, or forget it.

Sits on the blocking ``DeadLetters`` port; how a letter is sent again is in ``replay.py``. The command line
(``celeriac dead``) calls nothing else.
"""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypedDict, Unpack

from msgspec import Struct

from celeriac.app.replay import DeadLetterRefused, Replays, Skipped
from celeriac.client import resolver
from celeriac.client.connections import PerProcess
from celeriac.codec import letters
from celeriac.codec.letters import Edit, Letter
from celeriac.exceptions import CeleryError
from celeriac.model.dead import DeadFilter, DeadRecord
from celeriac.model.settle import DeadReason
from celeriac.ports import DeadLetters as Port
from celeriac.result import AsyncResult

__all__ = ["DeadLetterNotFound", "DeadLetterRefused", "DeadLetters", "Filters", "Letter", "Retried", "Skipped", "When"]

#: Seconds that one step may take, letters that one step sends again or drops, and that one look brings.
_TIMEOUT = 10.0
_BATCH = 200
_PAGE = 500

#: A moment, or how long ago it was: as a timedelta or in seconds.
When = datetime | timedelta | float


class Filters(TypedDict, total=False):
    """Which letters are meant: those that fit everything that is given. Empty texts and None say nothing."""

    #: Name of the task; ``*`` and ``?`` stand for any characters.
    task: str
    #: The queue they came from.
    queue: str
    #: A ``DeadReason``.
    reason: str
    #: Part of the exception, its class or its text, in any case.
    exception: str
    #: They died at this moment or later.
    since: When | None
    #: They died before.
    older_than: When | None


class DeadLetterNotFound(CeleryError, LookupError):
    """No dead letter of that key or id, or several."""


class Retried(Struct, frozen=True):
    """What ``retry_all`` has done: the ids of the tasks that were sent again, and the letters that were not."""

    ids: tuple[str, ...]
    skipped: tuple[Skipped, ...]


class DeadLetters:
    """The dead letters of an app's broker.

    ``which`` is a letter, its key, the id of its task, or the beginning of either that no other letter has; ``filters``
    are those of ``Filters``. All raise ``OperationalError`` when the broker cannot be reached.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._port: PerProcess[Port] = PerProcess(
            lambda: resolver.dead_letters(app.broker_url, resolver.adapter_options(app.conf, app.broker_url))
        )

    # ------------------------------------------------------------ looking

    def iterate(self, **filters: Unpack[Filters]) -> Iterator[Letter]:
        """All that fit, the newest first, read page by page while one goes on."""
        return self._each(_filter(filters))

    def list(self, *, limit: int = 100, **filters: Unpack[Filters]) -> Sequence[Letter]:
        """The newest that fit, up to ``limit``."""
        return tuple(islice(self._each(_filter(filters), limit), limit))

    def count(self, **filters: Unpack[Filters]) -> int:
        """How many fit."""
        return sum(len(page) for page in self._pages(_filter(filters), _PAGE))

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
        to_queue: str | None = None,
        countdown: float | None = None,
    ) -> AsyncResult[Any]:
        """Send one letter again under its task's id, and drop it, in one step; returns the task's result.

        Args:
            args: other positional arguments.
            kwargs: other keyword arguments.
            to_queue: another queue.
            countdown: seconds from now before which it does not start.

        Raises:
            DeadLetterNotFound: there is no such letter, or no longer.
            DeadLetterRefused: it is malformed, or cannot be encoded with these arguments.
            TypeError: the arguments do not fit the task's signature, if the task is known here.
        """
        dead = self.get(which)
        edit = Edit(args=args, kwargs=kwargs, queue=to_queue, countdown=countdown)
        if Replays(self._app, self._port.get()).send([dead], edit, refuse=True) != [dead.id]:
            raise DeadLetterNotFound(f"dead letter {dead.key} is gone: somebody has sent it again or dropped it")
        result: AsyncResult[Any] = self._app.AsyncResult(dead.id)
        return result

    def retry_all(
        self,
        *,
        limit: int | None = None,
        to_queue: str | None = None,
        countdown: float | None = None,
        **filters: Unpack[Filters],
    ) -> Retried:
        """Send all that fit again, the newest first, up to ``limit``; each letter in one step, many at a time.

        What dies again meanwhile is not sent once more. What cannot be sent again is skipped and told. ``to_queue`` and
        ``countdown`` as in ``retry``.
        """
        edit = Edit(queue=to_queue, countdown=countdown)
        replays = Replays(self._app, self._port.get())
        sent: builtins.list[str] = []
        left = sys.maxsize if limit is None else limit
        for page in self._pages(_filter(filters), _BATCH):
            while page and left > 0:
                # What is skipped leaves room for the next ones.
                batch, page = page[:left], page[left:]
                ids = replays.send(batch, edit)
                sent += ids
                left -= len(ids)
            if left <= 0:
                break
        return Retried(tuple(sent), tuple(replays.skipped))

    # ------------------------------------------------------------ forgetting

    def drop(self, which: str | Letter) -> None:
        """Forget one letter; its task will never run. Raises ``DeadLetterNotFound``."""
        self._port.get().drop([self.get(which).key], timeout=_TIMEOUT)

    def drop_all(self, *, limit: int | None = None, **filters: Unpack[Filters]) -> int:
        """Forget all that fit, the newest first, up to ``limit``; returns how many."""
        dropped = 0
        for page in self._pages(_filter(filters), _BATCH):
            keys = [each.key for each in (page if limit is None else page[: limit - dropped])]
            dropped += self._port.get().drop(keys, timeout=_TIMEOUT)
            if limit is not None and dropped >= limit:
                break
        return dropped

    # ------------------------------------------------------------ inside

    def arguments(self, which: str | Letter) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
        """Positional and keyword arguments of a letter; None when they cannot be decoded here."""
        found = Replays(self._app, self._port.get()).body(self.get(which))
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

    def _letter(self, record: DeadRecord) -> Letter:
        return letters.letter(record, max_bytes=self._app.conf.max_message_bytes)


def _filter(filters: Filters) -> DeadFilter:
    """Raises ``ValueError`` for a reason that does not exist, ``TypeError`` for an unknown filter."""
    unknown = set(filters) - set(Filters.__annotations__)
    if unknown:
        raise TypeError(f"no such filter of dead letters: {', '.join(sorted(unknown))}")
    now, reason = time.time(), filters.get("reason")
    since, older_than = filters.get("since"), filters.get("older_than")
    return DeadFilter(
        task=filters.get("task") or "",
        queue=filters.get("queue") or "",
        reason=DeadReason(reason).value if reason else "",
        exception=filters.get("exception") or "",
        since=None if since is None else _moment(since, now),
        before=None if older_than is None else _moment(older_than, now),
    )


def _moment(when: When, now: float) -> float:
    if isinstance(when, datetime):
        return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    return now - (when.total_seconds() if isinstance(when, timedelta) else when)
