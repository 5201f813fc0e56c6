"""The blocking ``DeadLetters`` of RabbitMQ, over the queue ``celeriac.dead``.

RabbitMQ cannot search: each call takes all letters for itself, and gives back in their order those that stay. While it
does so other callers wait, and the server counts none. To send a letter again takes two steps: publish, confirmed, then
acknowledge the letter; who is killed in between has sent it and still has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Connection, Line, monotonic
from celeriac.brokers.rabbitmq.deaths import key_of, record_of
from celeriac.brokers.rabbitmq.errors import Closed, full, unroutable
from celeriac.brokers.rabbitmq.frames import Event, ack
from celeriac.brokers.rabbitmq.layout import DEAD, NOT_FOUND, Layout, passive
from celeriac.brokers.rabbitmq.looking import ACCESS_REFUSED, CONSUME, Newest
from celeriac.brokers.rabbitmq.outgoing import outgoing
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.ports import AdapterOptions

__all__ = ["RabbitDeadLetters"]

#: Seconds between two tries while somebody else looks, and without a letter until the server is asked for more.
_PAUSE, _QUIET = 0.05, 0.1


class RabbitDeadLetters:
    """See ``celeriac.ports.DeadLetters``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._layout = Layout(options)
        self._line = Line(parse(url, options))

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """See ``DeadLetters.page``."""
        at, _, key = after.partition(":")
        newest = Newest(wanted, limit, (float(at), key) if after else None)
        with self._all(monotonic() + timeout, lambda event, tag: newest.show(event)):
            pass
        found = newest.found()
        last = f"{found[-1].at!r}:{found[-1].key}" if found and newest.more else ""
        return DeadPage(records=tuple(found), after=last)

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """See ``DeadLetters.get``."""
        found: dict[str, DeadRecord] = {}
        wanted = frozenset(keys)

        def show(event: Event, tag: int) -> None:
            key = key_of(event.header)
            if key in wanted:
                found[key] = record_of(event.header, event.body)

        if wanted:
            with self._all(monotonic() + timeout, show):
                pass
        return [found.get(key) for key in keys]

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters.replay``. Not one step: see above."""
        out = {replay.key: outgoing(replay.message) for replay in replays}
        if any(replay.change is not None for replay in replays):
            raise ImproperlyConfigured(
                f"{self._line.address.masked} keeps no ledger, which unique tasks need: set ledger_url to a Redis or "
                "SQLite URL"
            )
        tags: dict[str, int] = {}
        deadline = monotonic() + timeout
        if not out:
            return ()
        with self._all(deadline, lambda event, tag: _note(tags, out, event, tag)) as connection:
            there = [key for key in out if key in tags]
            if there and connection is not None:
                for queue in {out[key].queue for key in there}:
                    connection.run(self._layout.declaring(queue), deadline)
                back = connection.publish([out[key].frames(connection.frame_max) for key in there], deadline)
                if back.refused:
                    raise full(connection.address, back.refused)
                left = {event.header + event.body for event in back}
                sent = [key for key in there if out[key].header + out[key].body not in left]
                self._acknowledge(connection, [tags[key] for key in sent], deadline)
                if back:
                    _, _, exchange, routing_key = m.arguments(back[0].number, back[0].payload)
                    raise unroutable(connection.address, exchange, routing_key, uncertain=bool(sent))
        return [Stayed(key) for key in out if key not in tags]

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        tags: dict[str, int] = {}
        wanted = dict.fromkeys(keys)
        deadline = monotonic() + timeout
        if wanted:
            with self._all(deadline, lambda event, tag: _note(tags, wanted, event, tag)) as connection:
                if connection is not None:
                    self._acknowledge(connection, list(tags.values()), deadline)
        return len(tags)

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        self._line.close()

    @staticmethod
    def _acknowledge(connection: Connection, tags: Sequence[int], deadline: float) -> None:
        connection.send(b"".join(ack(1, tag) for tag in tags), deadline)
        connection.ask((m.CHANNEL_FLOW, True), deadline)  # so that the server has read them

    @contextmanager
    def _all(self, deadline: float, show: Callable[[Event, int], None]) -> Iterator[Connection | None]:
        """Every letter, shown one by one with its delivery tag; then the block, and what is not acknowledged goes
        back. None: there is no queue."""
        with self._line.use(deadline) as connection:
            if not self._consume(connection, deadline):
                yield None
                return
            try:
                self._show(connection, deadline, show)
                yield connection
            finally:
                connection.delivered = []
                connection.leave(deadline)

    @staticmethod
    def _consume(connection: Connection, deadline: float) -> bool:
        """All letters, for us alone; waits while others look. False: there is no queue."""
        while True:
            try:
                connection.ask(CONSUME, deadline)
            except Closed as error:
                if error.code == NOT_FOUND:
                    return False
                if error.code != ACCESS_REFUSED or "exclusive" not in error.text:
                    raise
                if monotonic() >= deadline:
                    raise OperationalError(f"somebody else is looking at {DEAD}: try again") from None
                time.sleep(_PAUSE)
            else:
                return True

    @staticmethod
    def _show(connection: Connection, deadline: float, show: Callable[[Event, int], None]) -> None:
        while True:
            events, connection.delivered = connection.delivered, []
            for event in events:
                show(event, m.arguments(event.number, event.payload)[1])
            try:
                connection.hear(min(monotonic() + _QUIET, deadline))
            except TimeoutError:
                if connection.delivered:
                    continue
                if connection.ask(passive(DEAD), deadline)[1] == 0 and not connection.delivered:
                    return


def _note(tags: dict[str, int], wanted: Mapping[str, object], event: Event, tag: int) -> None:
    key = key_of(event.header)
    if key in wanted:
        tags[key] = tag
