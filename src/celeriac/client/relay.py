"""Publishes what was committed to an outbox: takes rows, publishes, forgets them. Any number of relays do no harm.

A relay that dies between publishing and forgetting leaves rows that the next one takes again. Where queues and a ledger
are one server each message is published together with a key of its row, so the next one sees that it was; elsewhere the
message goes out a second time under the same id, and whoever takes it finds the result of the first. Blocking: runs on
a thread of the agent's, or alone (``celeriac outbox relay``).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.client import resolver
from celeriac.codec.escape import one_line
from celeriac.codec.outbox import chord_in, message_in
from celeriac.exceptions import CeleryError, ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.outbox import Fault, Kind, Row
from celeriac.ports import BlockingLedger, OncePublisher, OutboxStore

__all__ = ["Relay"]

logger = logging.getLogger("celeriac.outbox")

#: Seconds for which a broker remembers a row that was published, if nobody forgets it before.
_REMEMBERED = 86400.0
#: Seconds between two tries while a server is away; and until a row is tried again that the broker refused.
_FIRST, _MOST = 0.1, 2.0
_REFUSED_FIRST, _REFUSED_MOST = 1.0, 60.0
#: Seconds in which a stop is noticed by a relay that waits.
_SLICE = 0.25
#: Age in seconds of the oldest row from which on it is told, and how often.
_LATE, _LATE_AGAIN = 30.0, 60.0
#: Characters of an error that are kept.
_TEXT = 1000
#: What a bad row raises. An outage is an ``OperationalError``, and nobody's fault.
_BAD = (CeleryError, TypeError, ValueError, NotImplementedError)


class Relay:
    """The relay of one outbox. One thread uses it; ``stats`` may be read by others."""

    def __init__(self, app: Any, store: OutboxStore, name: str, *, rand: Callable[[], float] = random.random) -> None:
        """``name`` stands for the outbox in log lines: its URL without the password."""
        conf = app.conf
        self._app = app
        self._store = store
        self._name = name
        self._rand = rand
        self._limit: int = conf.outbox_batch_size
        self._interval: float = conf.seconds("outbox_interval")
        self._timeout: float = conf.seconds("broker_publish_timeout")
        self._ledger: BlockingLedger | None = None
        #: The broker publishes under keys; found out with the first message.
        self._keyed = True
        self._failures = 0
        self._told_late = 0.0
        self._stats: dict[str, Any] = {"outbox": name, "relayed": 0, "failed": 0, "lag": 0.0, "error": ""}

    def stats(self) -> dict[str, Any]:
        """What was relayed and what failed since the start, and the age of the oldest row at the last look."""
        return dict(self._stats)

    # -- the loop

    def run(self, stop: threading.Event) -> None:
        """Relay until ``stop`` is set. No outage ends it."""
        logger.info("Outbox %s: relaying", self._name)
        try:
            while not stop.is_set():
                try:
                    if not self.turn():
                        self._idle(stop)
                except (OperationalError, ImproperlyConfigured) as error:
                    stop.wait(self._away(error))
        finally:
            self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._store.close()
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    def turn(self) -> bool:
        """Relay one batch; whether more may wait. Raises ``OperationalError`` while database, broker or result store is
        away, ``ImproperlyConfigured`` when the table is missing; what was published by then is settled."""
        rows = self._store.take(self._limit)
        self._stats["lag"] = round(rows[0].age, 3) if rows else 0.0
        if not rows:
            self._came_back()
            return False
        self._late(rows[0].age)
        try:
            done, faults, away = self._publish(rows)
            self._store.settle(done, faults)
        except BaseException:
            self._store.put_back()
            raise
        self._forget(done)
        self._stats["relayed"] += len(done)
        self._stats["failed"] += sum(fault.pause is None for fault in faults)
        if away is not None:
            raise away
        self._came_back()
        return len(rows) == self._limit or bool(faults)

    def _idle(self, stop: threading.Event) -> None:
        """Until the database tells of a commit, or it is time to look."""
        until = time.monotonic() + self._interval
        while (left := until - time.monotonic()) > 0 and not stop.is_set():
            part = min(left, _SLICE)
            began = time.monotonic()
            if self._store.wait(part):
                return
            stop.wait(part - (time.monotonic() - began))

    def _away(self, error: Exception) -> float:
        """Tell of an outage now and then; returns the seconds until the next try."""
        self._failures += 1
        self._stats["error"] = str(error)
        pause: float = min(_MOST, _FIRST * 2 ** min(self._failures - 1, 10)) * (0.5 + 0.5 * self._rand())
        if self._failures & (self._failures - 1) == 0:
            logger.error("Outbox %s: nothing is relayed, next try in %.1f s: %s", self._name, pause, error)
        return pause

    def _came_back(self) -> None:
        if self._failures:
            logger.info("Outbox %s: relaying again", self._name)
        self._failures, self._stats["error"] = 0, ""

    def _late(self, age: float) -> None:
        now = time.monotonic()
        if age >= _LATE and (not self._told_late or now - self._told_late >= _LATE_AGAIN):
            self._told_late = now
            logger.warning("Outbox %s: the oldest of its rows has waited for %.0f s", self._name, age)

    # -- publishing

    def _publish(self, rows: Sequence[Row]) -> tuple[list[str], list[Fault], OperationalError | None]:
        """Ids of what was published, why others stay, and what ended it early: the rest stays as it was."""
        done: list[str] = []
        faults: list[Fault] = []
        messages: list[tuple[Row, Message]] = []
        try:
            for row in rows:
                try:
                    if row.parcel.kind is Kind.CHORD:
                        self._app.backend.open_chords([chord_in(row.parcel)])
                        done.append(row.parcel.id)
                    else:
                        # What the sender let pass goes: only it knows what the limit was.
                        zone = self._app.sender.zone
                        messages.append((row, message_in(row.parcel, zone=zone, max_bytes=2**31)))
                except OperationalError as error:
                    faults.append(self._refused(row, error))
                except _BAD as error:
                    faults.append(self._bad(row, error))
            if messages:
                self._send(messages, done, faults)
        except OperationalError as error:
            return done, faults, error
        return done, faults, None

    def _send(self, messages: Sequence[tuple[Row, Message]], done: list[str], faults: list[Fault]) -> None:
        """Publish in one call; when that does not work, each alone, for one may be to blame."""
        row = messages[0][0]
        try:
            published = self._hand_over(messages)
        except (OperationalError, *_BAD) as error:
            outage = isinstance(error, OperationalError)
            if len(messages) == 1:
                faults.append(self._refused(row, error) if outage else self._bad(row, error))
                return
            if outage:
                self._look(row, error)
            for each in messages:
                self._send([each], done, faults)
            return
        done.extend(row.parcel.id for row, _ in messages)
        try:
            self._app.sender.announce(published)
        except CeleryError as error:  # its arguments are elsewhere, and cannot be shown to the receivers
            logger.warning("Outbox %s: receivers of after_task_publish were not told: %s", self._name, error)

    def _hand_over(self, messages: Sequence[tuple[Row, Message]]) -> list[Message]:
        """Give messages to the broker, under their keys where it has a ledger; returns those that are new to it."""
        publisher = self._app.sender.publisher
        if isinstance(publisher, OncePublisher):
            keyed = {_key(row.parcel.id): message for row, message in messages}
            fresh = publisher.publish_once(keyed, expires=_REMEMBERED, timeout=self._timeout)
            return [keyed[key] for key in fresh]
        # Not by ``publish_if``: where its steps are several, a key may be there without its message.
        if self._keyed:
            self._keyed = False
            logger.info("Outbox %s: what a relay that dies has published is sent again: no ledger there", self._name)
        publisher.publish([message for _, message in messages], timeout=self._timeout)
        return [message for _, message in messages]

    def _refused(self, row: Row, error: Exception) -> Fault:
        """The fault of a row whose server answers otherwise: others pass it. Raises the error when that is away."""
        self._look(row, error)
        pause = min(_REFUSED_MOST, _REFUSED_FIRST * 2 ** min(row.attempts, 10)) * (0.5 + 0.5 * self._rand())
        logger.warning("Outbox %s: %s is refused, next try in %.0f s: %s", self._name, _named(row), pause, error)
        return Fault(row.parcel.id, str(error)[:_TEXT], pause)

    def _look(self, row: Row, error: Exception) -> None:
        """Raise the error when the server that a row goes to is away."""
        try:
            if row.parcel.kind is Kind.CHORD:
                self._app.backend.reader.get([row.parcel.task_id], timeout=self._timeout)
            else:
                self._app.sender.publisher.depth([row.parcel.queue], timeout=self._timeout)
        except OperationalError:
            raise error from None

    def _bad(self, row: Row, error: Exception) -> Fault:
        logger.error(
            "Outbox %s: %s cannot be published and stays there until `celeriac outbox retry` or `drop`: %s",
            self._name,
            _named(row),
            error,
        )
        return Fault(row.parcel.id, f"{type(error).__name__}: {error}"[:_TEXT])

    def _forget(self, done: Sequence[str]) -> None:
        """Their rows are gone for good: nobody asks for their keys any more."""
        if not (done and self._keyed):
            return
        app = self._app
        try:
            if self._ledger is None:
                self._ledger = resolver.ledger(app.sender.url, resolver.adapter_options(app.conf))
            self._ledger.change([Change(_key(each), None) for each in done], timeout=self._timeout)
        except (OperationalError, ImproperlyConfigured):
            pass  # they go with their time


def _key(parcel_id: str) -> str:
    return f"outbox:{parcel_id}"


def _named(row: Row) -> str:
    what = "the chord" if row.parcel.kind is Kind.CHORD else one_line(row.parcel.task)
    return f"{what}[{one_line(row.parcel.task_id)}]"
