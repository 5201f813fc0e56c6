"""Blocking access to results for ``.get()``: subscribe to the record's channel, then read it.

A waiting call has a connection of its own for as long as it waits, from a small stock; it unsubscribes when it ends, so
nothing is left on the server. What a lost connection or a lost message hides is found by reading again.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from hiredis import PushNotification

from celeriac.brokers.redis.blocking import Connection, Pool, found, monotonic
from celeriac.brokers.redis.chords import grow_keys, life, open_args
from celeriac.brokers.redis.endings import result_args
from celeriac.brokers.redis.errors import lost, refused
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.places import Places
from celeriac.brokers.redis.scripts import CHORD_GROW, CHORD_OPEN, STORE
from celeriac.brokers.redis.sockets import Word, pack
from celeriac.brokers.redis.urls import parse
from celeriac.exceptions import OperationalError
from celeriac.model.chord import NewChord
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions

__all__ = ["Ear", "RedisReader"]

_BATCH = 500
#: Most chords that one script opens.
_CHORDS = 100
#: A waiter reads its records again after so many seconds of silence: messages of pub/sub may be lost.
_REREAD = 3.0
#: Seconds between attempts to reconnect, first and last; and how long to try when the caller gave no time.
_PAUSE_FIRST, _PAUSE_LAST, _GIVE_UP = 0.05, 1.0, 30.0
#: Longest pause between two looks where nothing can be heard.
_POLL_LAST = 0.5
#: What ended a wait is the record as it is now, for so many seconds.
_FRESH = 0.05
#: Most idle connections kept for waiters.
_STOCK = 8
_FINAL = (b"SUCCESS", b"FAILURE", b"REVOKED")
_STATUS = re.compile(rb'\{"status": ?"([^"]*)"')


class RedisReader:
    """See ``celeriac.ports.Reader``."""

    def __init__(self, url: str, options: AdapterOptions, *, pool: Pool | None = None) -> None:
        """With a ``pool`` it is part of a cluster's, and the pool knows the address."""
        self._address = parse(url, options) if pool is None else pool.address
        self._layout = Layout(self._address, options)
        self._pool = pool or Pool(self._address, options.pool_limit)
        self._places = Places(self._address)
        self._token_time = options.chord_token
        self._ears: deque[Ear] = deque(maxlen=_STOCK)
        self._pid = os.getpid()
        #: A thread's ``record``: id and record that ended its last wait, and when.
        self._heard = threading.local()
        #: The server speaks no RESP3 (a proxy, as a rule).
        self._deaf = False

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """See ``Reader.get``."""
        record = self.just_heard(ids)
        if record is not None:
            return [record]
        found: list[bytes | None] = []
        deadline = monotonic() + timeout
        for at in range(0, len(ids), _BATCH):
            keys = map(self._layout.result, ids[at : at + _BATCH])
            found += self._pool.call(("MGET", *keys), max(deadline - monotonic(), 0.001), repeat=True)
        return found

    def just_heard(self, ids: Sequence[str]) -> bytes | None:
        """The record of a single id with which `wait` of this thread has just ended: it needs no second round trip."""
        if len(ids) != 1:
            return None
        heard: tuple[str, bytes, float] | None = self._heard.__dict__.pop("record", None)
        return heard[1] if heard is not None and heard[0] == ids[0] and monotonic() - heard[2] < _FRESH else None

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """See ``Reader.wait``. Records that are already there count when they look final; any new one counts.

        ``OperationalError`` when the server cannot be reached by the end of ``timeout``, or for 30 s without one.
        """
        if not ids:
            return None
        keys = {self._key(task_id): task_id for task_id in ids}
        deadline = None if timeout is None else monotonic() + timeout
        pause, down_since = _PAUSE_FIRST, None
        while True:
            try:
                woken = self._listen(tuple(keys), deadline)
                if woken is None:
                    return None
                task_id = keys[woken[0]]
                self._heard.record = (task_id, woken[1], monotonic())
                return task_id
            except hiredis.ReplyError as error:
                problem: OperationalError = refused(self._address, error)
                if not str(error).startswith(("LOADING", "MASTERDOWN", "BUSY")):
                    raise problem from error
            except OSError as error:
                problem = lost(self._address, error)
            now = monotonic()
            down_since = down_since or now
            if (deadline is None and now - down_since > _GIVE_UP) or (deadline is not None and now + pause >= deadline):
                raise problem
            time.sleep(pause)
            pause = min(pause * 2, _PAUSE_LAST)

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """See ``ResultStore.put``."""
        deadline = monotonic() + timeout
        for at in range(0, len(results), _BATCH):
            keys, args = result_args(self._layout, results[at : at + _BATCH])
            self._pool.script(STORE, keys, args, max(deadline - monotonic(), 0.001), repeat=True)

    def forget(self, ids: Sequence[str], *, timeout: float) -> None:
        """See ``ResultStore.forget``."""
        deadline = monotonic() + timeout
        for at in range(0, len(ids), _BATCH):
            keys = map(self._layout.result, ids[at : at + _BATCH])
            self._pool.call(("UNLINK", *keys), max(deadline - monotonic(), 0.001), repeat=True)

    def open_chords(self, chords: Sequence[NewChord], *, timeout: float) -> None:
        """See ``ResultStore.open_chords``."""
        deadline = monotonic() + timeout
        for at in range(0, len(chords), _CHORDS):
            keys, args = open_args(self._layout, chords[at : at + _CHORDS], self._token_time)
            self._pool.script(CHORD_OPEN, keys, args, max(deadline - monotonic(), 0.001), repeat=True)

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """See ``ResultStore.grow_chord``."""
        self._pool.script(CHORD_GROW, grow_keys(self._layout, chord), [by], timeout)

    def save_group(self, group: str, body: bytes, *, expires: float | None, timeout: float) -> None:
        """See ``Reader.save_group``."""
        key, kept = self._layout.group(group), life(expires)
        self._pool.call(("SET", key, body, "PX", kept) if kept else ("SET", key, body), timeout, repeat=True)

    def load_group(self, group: str, *, timeout: float) -> bytes | None:
        """See ``Reader.load_group``."""
        body: bytes | None = self._pool.call(("GET", self._layout.group(group)), timeout, repeat=True)
        return body

    def drop_group(self, group: str, *, timeout: float) -> None:
        """See ``Reader.drop_group``."""
        self._pool.call(("UNLINK", self._layout.group(group)), timeout, repeat=True)

    def close(self) -> None:
        """Close all idle connections; a later call opens new ones."""
        self._pool.close()
        while self._ears:
            self._ears.pop().close()

    # -- inside

    def _key(self, task_id: str) -> str:
        return self._layout.result(task_id)

    def _id(self, key: str) -> str:
        return self._layout.result_id(key)

    def _listen(self, keys: tuple[str, ...], deadline: float | None) -> tuple[str, bytes] | None:
        ear = None if self._deaf else self._take_ear(deadline)
        if ear is None:
            self._deaf = True
            return self._poll(keys, deadline)
        try:
            woken = ear.wait(keys, deadline)
            ear.unsubscribe(keys)
        except BaseException:
            ear.close()
            raise
        self._give_ear(ear)
        return woken

    def _poll(self, keys: tuple[str, ...], deadline: float | None) -> tuple[str, bytes] | None:
        """Without RESP3 a connection cannot listen and ask: look again and again."""
        pause = _PAUSE_FIRST
        ids = [self._id(key) for key in keys]
        while True:
            for key, record in zip(keys, self.get(ids, timeout=self._address.connect_timeout), strict=True):
                if record is not None and _looks_final(record):
                    return key, record
            left = pause if deadline is None else deadline - monotonic()
            if left <= 0:
                return None
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _POLL_LAST)

    def _take_ear(self, deadline: float | None) -> Ear | None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            ears, self._ears = self._ears, deque(maxlen=_STOCK)
            for ear in ears:
                ear.close()
        while True:
            try:
                ear = self._ears.pop()
            except IndexError:
                limit = monotonic() + self._address.reach_timeout
                connection = found(self._places, min(limit, deadline or limit))
                if connection.resp3:
                    return self._ear(connection)
                connection.close()
                return None
            if ear.usable():
                return ear
            ear.close()

    def _ear(self, connection: Connection) -> Ear:
        return Ear(self._address.reply_timeout, connection)

    def _give_ear(self, ear: Ear) -> None:
        if len(self._ears) < _STOCK:
            self._ears.append(ear)
        else:
            ear.close()


class Ear:
    """A connection that listens; one waiter at a time."""

    def __init__(self, reply_timeout: float, connection: Connection) -> None:
        self._connection = connection
        self._reply_timeout = reply_timeout
        #: Confirmations of UNSUBSCRIBE that are still to come.
        self._owed = 0

    def usable(self) -> bool:
        """Whether the connection lives; takes in what came since it was last used."""
        try:
            while self._owed:
                self._read(monotonic() + self._reply_timeout)
            while self._connection.idle_poll(0):
                self._read(monotonic() + self._reply_timeout)
        except OSError:
            return False
        return True

    def wait(self, keys: tuple[str, ...], deadline: float | None) -> tuple[str, bytes] | None:
        """The first key that has a final record, or is written, with the record; None at the deadline."""
        subscribe = pack(("SUBSCRIBE", *keys))
        while True:
            for at in range(0, len(keys), _BATCH):
                page = keys[at : at + _BATCH]
                pushed, records = self._look(subscribe, page)
                subscribe = b""
                if pushed is not None:
                    return pushed
                for key, record in zip(page, records, strict=True):
                    if record is not None and _looks_final(record):
                        return key, record
            now = monotonic()
            if deadline is not None and now >= deadline:
                return None
            # Silence ends in another look, which also finds out whether the server is still there.
            until = now + _REREAD if deadline is None else min(now + _REREAD, deadline)
            try:
                while True:
                    announced = _announced(self._read(until))
                    if announced is not None:
                        return announced
            except TimeoutError:
                if deadline is not None and monotonic() >= deadline:
                    return None

    def _look(self, subscribe: bytes, page: Sequence[str]) -> tuple[tuple[str, bytes] | None, Sequence[bytes | None]]:
        """Subscribe and read: a key announced meanwhile, and the records."""
        return self._asked(subscribe, ("MGET", *page))

    def _asked(self, subscribe: bytes, words: tuple[Word, ...]) -> tuple[tuple[str, bytes] | None, Any]:
        self._connection.send(subscribe + pack(words), monotonic() + self._reply_timeout)
        return self._until_reply()

    def unsubscribe(self, keys: tuple[str, ...]) -> None:
        """Leave the channels; the confirmations are read when the connection is used again."""
        self._connection.send(pack(("UNSUBSCRIBE", *keys)), monotonic() + self._reply_timeout)
        self._owed += len(keys)

    def close(self) -> None:
        self._connection.close()

    def _until_reply(self) -> tuple[tuple[str, bytes] | None, Any]:
        """Read up to the reply of a command: a key announced before it, and the reply."""
        pushed = None
        while True:
            reply = self._read(monotonic() + self._reply_timeout)
            if not isinstance(reply, PushNotification):
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
                return pushed, reply
            pushed = pushed or _announced(reply)

    def _read(self, deadline: float) -> Any:
        reply = self._connection.read(deadline)
        if isinstance(reply, PushNotification) and reply[0] == b"unsubscribe":
            self._owed -= 1
        return reply


def _announced(reply: Any) -> tuple[str, bytes] | None:
    """The key that a push says was written, and the record."""
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    if isinstance(reply, PushNotification) and reply[0] == b"message":
        return bytes(reply[1]).decode("utf-8", "replace"), bytes(reply[2])
    return None


def _looks_final(record: bytes) -> bool:
    """Whether waiting for more makes no sense. Records of other serializers than JSON hold the state as text too."""
    status = _STATUS.match(record)
    if status is not None:
        return status[1] in _FINAL
    return any(state in record[:256] for state in _FINAL)
