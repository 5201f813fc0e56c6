"""``app.transaction(connection)``: what is sent inside belongs to the application's own transaction.

Two ways, told apart by the settings alone: with ``outbox_url`` rows of the outbox, which relays publish after the
commit; without it the queue tables themselves, where the broker keeps them in PostgreSQL. Called by
``Celery.transaction``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from celeriac.client import resolver
from celeriac.client.transactions import sending_into
from celeriac.codec.outbox import chord_parcel, message_parcel
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.chord import NewChord
from celeriac.model.message import Message
from celeriac.outbox.connections import raw_of, writer_of
from celeriac.ports import AdapterOptions, OutboxWriter

__all__ = ["transaction"]


class Outboxed:
    """Rows of the outbox, in the order of their sends."""

    relayed = True

    def __init__(self, writer: OutboxWriter) -> None:
        self._writer = writer

    def put(self, messages: Sequence[Message]) -> None:
        """Write the messages' rows."""
        self._writer.write([message_parcel(message) for message in messages])

    def open_chords(self, chords: Sequence[NewChord]) -> None:
        """Write the chords' rows: the relay opens them, so a rollback leaves nothing."""
        self._writer.write([chord_parcel(chord) for chord in chords])


class Direct:
    """The broker's own tables, in the application's database."""

    relayed = False

    def __init__(
        self, raw: Callable[[], Any], publish_in: Callable[..., None], url: str, options: AdapterOptions, backend: Any
    ) -> None:
        self._raw = raw
        self._url = url
        self._publish_in = publish_in
        self._options = options
        self._backend = backend

    def put(self, messages: Sequence[Message]) -> None:
        """Publish, without a commit."""
        self._publish_in(self._raw(), messages, self._options, url=self._url)

    def open_chords(self, chords: Sequence[NewChord]) -> None:
        """Opened at once: after a rollback an empty one lies in the result store until its life time is over."""
        self._backend.write_chords(chords)


def transaction(app: Any, connection: Any, using: str | None) -> AbstractContextManager[None]:
    """See ``Celery.transaction``."""
    conf = app.conf
    if using is not None:
        if connection is not None:
            raise TypeError("app.transaction() takes a connection or using=, the name of a Django database, not both")
        from celeriac.outbox.django import named

        connection = named(using)
    elif connection is None:
        raise TypeError("app.transaction() needs the connection of the transaction, or using='default' with Django")
    if conf.outbox_url:
        return sending_into(conf, Outboxed(writer_of(connection)))
    url = app.sender.url
    publish_in = getattr(resolver.adapter(url), "publish_in", None)
    if publish_in is None:
        raise ImproperlyConfigured(
            f"app.transaction() needs the setting outbox_url, the URL of the application's database, for its broker "
            f"{resolver.mask(url)} is elsewhere: workers with that setting publish what was committed there"
        )
    return sending_into(conf, Direct(raw_of(connection), publish_in, url, resolver.adapter_options(conf), app.backend))
