"""``rpc://`` in a worker: each record is one message to the queue that the sender of the task has named.

Nothing can be read back, so repeats are not recognised by it, and tasks cannot wait for each other in it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.layout import Layout
from celeriac.brokers.rabbitmq.outbox import Outbox
from celeriac.brokers.rabbitmq.replying import letter_of
from celeriac.exceptions import OperationalError
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, ReplyQueue, Traits

__all__ = ["ReplyStore"]

logger = logging.getLogger("celeriac.brokers.rabbitmq")


class ReplyStore:
    """See ``celeriac.ports.ResultStore``."""

    def __init__(self, options: AdapterOptions) -> None:
        addresses = parse("", options)
        self.traits = Traits(durable=False, native_delay=False, server=("replies", addresses[0].server[1]))
        self._replies = options.replies or ReplyQueue()
        self._outbox = Outbox(addresses, Layout(options))
        self._masked = addresses[0].masked
        self._open = False

    async def open(self) -> None:
        """See ``ResultStore.open``."""
        await self._outbox.wire()
        self._open = True

    async def close(self) -> None:
        """See ``ResultStore.close``."""
        self._open = False
        await self._outbox.close()

    async def put(self, results: Sequence[StoredResult]) -> None:
        """See ``ResultStore.put``. The reader keeps a success from being replaced."""
        if not self._open:
            raise OperationalError(f"the connection to {self._masked} is closed: call open() first")
        letters = [letter_of(result, self._replies) for result in results if result.reply_to]
        if letters:
            await self._outbox.publish(letters)

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """See ``ResultStore.get``: what was sent is not here."""
        return [None] * len(ids)

    async def forget(self, ids: Sequence[str]) -> None:
        """See ``ResultStore.forget``: what was sent is its reader's."""

    async def sweep(self) -> int:
        """See ``ResultStore.sweep``: the server lets records expire."""
        return 0

    # -- chords: whoever sends one is refused (``Backend.ensure_chords_allowed``); these are of senders elsewhere

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        """See ``ResultStore.open_chords``."""
        for chord in chords:
            self._complain(chord.id)

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """See ``ResultStore.join``: no chord is ever complete."""
        for chord in {part.chord for part in parts}:
            self._complain(chord)
        return ()

    def _complain(self, chord: str) -> None:
        logger.error(
            "The body of chord %r will not run: rpc:// cannot count the tasks of a chord; set result_backend of sender "
            "and workers to a store, such as redis://",
            chord[:80],
        )

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """See ``ResultStore.gather``."""
        return None

    async def close_chord(self, closing: Closing) -> bool:
        """See ``ResultStore.close_chord``."""
        return False

    async def grow_chord(self, chord: str, by: int) -> None:
        """See ``ResultStore.grow_chord``."""
        self._complain(chord)

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """See ``ResultStore.overdue``."""
        return ()
