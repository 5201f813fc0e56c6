"""The deliveries that one channel has lent: which tokens are held, and how they are acknowledged in few frames. Pure.

A token is good as long as its channel: ``<owner>:<generation>:<delivery tag>:<task id>``. When the channel is gone the
server gives back what was held there, and every token of that generation is worthless.
"""

from __future__ import annotations

from collections.abc import Iterable

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.frames import ack
from celeriac.model.message import Delivery
from celeriac.model.settle import Settlement

__all__ = ["Entry", "Held"]


class Consumer:
    """A subscription: ``outstanding`` of ``prefetch`` deliveries are not acknowledged."""

    __slots__ = ("began", "outstanding", "prefetch", "queue", "tag")

    def __init__(self, tag: str, queue: str, prefetch: int) -> None:
        self.tag = tag
        self.queue = queue
        self.prefetch = prefetch
        self.outstanding = 0
        #: The server has said so. Before that it must not be cancelled: RabbitMQ's channel would crash.
        self.began = False

    @property
    def room(self) -> int:
        """How many the server may still push."""
        return self.prefetch - self.outstanding


class Entry:
    """One unacknowledged delivery."""

    __slots__ = (
        "body", "consumer", "copies", "delivery", "due", "header", "kept", "lent", "queue", "since", "tag", "told"
    )  # fmt: skip

    def __init__(
        self, tag: int, queue: str, header: bytes, body: bytes, delivery: Delivery, consumer: Consumer | None
    ) -> None:
        self.tag = tag
        self.queue = queue
        self.header = header
        self.body = body
        self.delivery = delivery
        self.consumer = consumer
        #: Not before this moment, seconds since the epoch; 0: at once.
        self.due = 0.0
        #: When the server sent it, monotonic.
        self.since = 0.0
        #: How often it was lent from here.
        self.lent = 0
        #: It cannot go back to where it came from: it goes back as a copy.
        self.copies = False
        #: It came from the queue of this child (``keeping.py``): what is rejected there is led back to its own.
        self.kept = False
        #: How it was to end, and the header of the copy that may be on its way since.
        self.told: tuple[Settlement, bytes] | None = None

    def __lt__(self, other: Entry) -> bool:
        return (self.due, self.tag) < (other.due, other.tag)


class Held:
    """What is held over one channel. ``entries`` are lent, under their tokens; ``open`` is all that is not settled."""

    def __init__(self, owner: str, generation: int) -> None:
        self.owner = owner
        self.generation = generation
        self.entries: dict[str, Entry] = {}
        #: By delivery tag, which only grows.
        self.open: dict[int, Entry] = {}

    def token(self, entry: Entry) -> str:
        """The token under which an entry is lent next."""
        entry.lent += 1
        again = f".{entry.lent}" if entry.lent > 1 else ""
        return f"{self.owner}:{self.generation}:{entry.tag}{again}:{entry.delivery.message.id}"

    def add(self, entry: Entry) -> None:
        """The server has sent it."""
        self.open[entry.tag] = entry
        if entry.consumer is not None:
            entry.consumer.outstanding += 1

    def _drop(self, entry: Entry) -> None:
        del self.open[entry.tag]
        if entry.consumer is not None:
            entry.consumer.outstanding -= 1

    def acks(self, channel: int, entries: Iterable[Entry]) -> bytes:
        """Frames that acknowledge these; one for all that are in front of everything else."""
        ended = {entry.tag: entry for entry in entries if entry.tag in self.open}
        frames: list[bytes] = []
        up_to = count = 0
        for tag in self.open:
            if tag not in ended:
                break
            up_to, count = tag, count + 1
        if count > 1:
            frames.append(ack(channel, up_to, multiple=True))
        else:
            up_to = 0
        for tag, entry in ended.items():
            if tag > up_to:
                frames.append(ack(channel, tag))
            self._drop(entry)
        return b"".join(frames)

    def nacks(self, channel: int, entries: Iterable[Entry]) -> bytes:
        """Frames that give these back to where they were, in their order: somebody may wait for the first."""
        frames: list[bytes] = []
        for entry in sorted(entries, key=lambda entry: entry.tag):
            if entry.tag in self.open:
                frames.append(m.method(channel, m.BASIC_NACK, entry.tag, False, not entry.kept))
                self._drop(entry)
        return b"".join(frames)
