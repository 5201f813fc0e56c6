"""The blocking ``DeadLetters`` of Redis: one script a page, and one a batch of letters that are sent again or dropped.

A key is the letter's member in ``celeriac:dead``, ``<uuid>:<queue>``; bytes that are no UTF-8 are kept as surrogates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from celeriac.brokers.redis.blocking import Pool, monotonic
from celeriac.brokers.redis.endings import dead_record
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.ledger_keys import change_args
from celeriac.brokers.redis.scripts import DEAD_DROP, DEAD_PAGE, DEAD_REPLAY
from celeriac.brokers.redis.sockets import Word
from celeriac.brokers.redis.urls import parse
from celeriac.codec import envelope
from celeriac.exceptions import OperationalError
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.ports import AdapterOptions

__all__ = ["RedisDeadLetters", "Row"]

#: Most letters, and about how many bytes, that one page looks at; most that one script changes.
_SCAN, _SCAN_BYTES, _BATCH = 500, 8 * 1024 * 1024, 200
_NO_CHANGE: tuple[Word, ...] = ("any", "", "drop", "", "")


class Row(NamedTuple):
    """A letter in its place: the newest have the highest score."""

    score: str
    key: str
    #: None: somebody took the record away.
    record: DeadRecord | None

    @property
    def place(self) -> str:
        """Where the next page begins, behind this one."""
        return f"{self.score}:{self.key}"

    @property
    def order(self) -> tuple[float, bytes]:
        """By what letters are in order, across queues too."""
        return float(self.score), _bytes(self.key)


class RedisDeadLetters:
    """See ``celeriac.ports.DeadLetters``."""

    def __init__(self, url: str, options: AdapterOptions, *, pool: Pool | None = None) -> None:
        """With a ``pool`` it is part of a cluster's, and the pool knows the address."""
        self._address = parse(url, options) if pool is None else pool.address
        self._layout = Layout(self._address, options)
        self._keys = (self._layout.dead, self._layout.dead_records, self._layout.dead_counts)
        self._pool = pool or Pool(self._address, options.pool_limit)

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """See ``DeadLetters.page``."""
        found: list[DeadRecord] = []
        rows, more = self.rows(after, timeout=timeout)
        for at, row in enumerate(rows, 1):
            if row.record is not None and wanted.matches(row.record):
                found.append(row.record)
            if more if at == len(rows) else len(found) == limit:
                return DeadPage(records=tuple(found), after=row.place)
        return DeadPage(records=tuple(found), after="")

    def rows(self, after: str, *, timeout: float) -> tuple[Sequence[Row], bool]:
        """The next letters as they are stored, a bounded number, and whether there may be more."""
        score, _, member = after.partition(":")
        args: list[Word] = [score, _bytes(member), _SCAN, _SCAN_BYTES]
        more, *flat = self._pool.script(DEAD_PAGE, self._keys[:2], args, timeout, repeat=True)
        rows = [
            Row(_text(score), _text(member), _record(_text(member), record))
            for member, score, record in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]
        return rows, bool(more)

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """See ``DeadLetters.get``."""
        if not keys:
            return ()
        words: tuple[Word, ...] = ("HMGET", self._layout.dead_records, *map(_bytes, keys))
        texts = self._pool.call(words, timeout, repeat=True)
        return [_record(key, text) for key, text in zip(keys, texts, strict=True)]

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters.replay``. As with ``Publisher.publish`` workers move what is not due yet."""
        deadline = monotonic() + timeout
        texts = [envelope.encode(replay.message) for replay in replays]
        stayed: list[Stayed] = []
        for at in range(0, len(replays), _BATCH):
            stayed += self._replay(replays[at : at + _BATCH], texts[at : at + _BATCH], deadline)
        return stayed

    def _replay(self, page: Sequence[Replay], texts: Sequence[bytes], deadline: float) -> list[Stayed]:
        layout = self._layout
        lists: dict[str, int] = {}
        for replay in page:
            lists.setdefault(layout.ready(replay.message.queue, replay.message), len(self._keys) + len(lists) + 1)
        locks: list[str] = []
        args: list[Word] = [len(lists)]
        for replay, text in zip(page, texts, strict=True):
            keys, change = change_args(layout, () if replay.change is None else (replay.change,))
            locks += keys
            number = len(self._keys) + len(lists) + len(locks) if keys else 0
            place = lists[layout.ready(replay.message.queue, replay.message)]
            args += (_bytes(replay.key), place, text, number, *(change or _NO_CHANGE))
        answer, sent = self._asked([*self._keys, *lists, *locks], args, deadline)
        found = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return [Stayed(page[number].key, bool(gone), there) for number, gone, there in found if not (sent and gone)]

    def _asked(self, keys: Sequence[Word], args: Sequence[Word], deadline: float) -> tuple[Sequence[Any], bool]:
        """The script's answer, and whether letters that are gone were sent by an earlier try, whose answer was lost."""

        def attempt() -> Sequence[Any]:
            answer: Sequence[Any] = self._pool.script(DEAD_REPLAY, keys, args, max(deadline - monotonic(), 0.001))
            return answer

        try:
            return attempt(), False
        except OperationalError as error:
            if not error.uncertain or monotonic() >= deadline:
                raise
        try:
            return attempt(), True
        except OperationalError as error:
            error.uncertain = True
            raise

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        deadline, dropped = monotonic() + timeout, 0
        for at in range(0, len(keys), _BATCH):
            left = max(deadline - monotonic(), 0.001)
            dropped += self._pool.script(
                DEAD_DROP, self._keys, [_bytes(key) for key in keys[at : at + _BATCH]], left, repeat=True
            )
        return dropped

    def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        self._pool.close()


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _record(key: str, text: bytes | None) -> DeadRecord | None:
    return None if text is None else dead_record(key, text)
