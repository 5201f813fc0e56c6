"""Slots of a Redis Cluster: which a tag has, and who serves it. Pure.

Everything that one script touches carries one tag (``{celery}:unacked``), and so lies in one slot: a queue with its
leases, schedule and dead letters; the results and chords of one bucket; rules, ledger and bindings together.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct

__all__ = ["BUCKETS", "HOME", "SlotMap", "bucket_of", "bucket_tags", "queue_tag", "slot_of", "tagged"]

SLOTS = 16384
#: Results and chords are spread over so many tags, evenly over the slots: a batch of 256 results takes 64 scripts at
#: most, and up to some 16 shards all have about the same.
BUCKETS = 64
#: The tag of what belongs to no queue.
HOME = "celeriac"


class SlotMap(Struct, frozen=True):
    """Which node serves a slot, as of ``version``; nodes as ``host:port``."""

    version: int = 0
    #: First and last slot of each range, and its node.
    ranges: Sequence[tuple[int, int, str]] = ()
    #: What was learnt of single slots since.
    moved: Mapping[int, str] = {}

    def owner(self, slot: int) -> str | None:
        """The node that serves a slot; None: nobody."""
        found = self.moved.get(slot)
        if found is None:
            found = next((node for first, last, node in self.ranges if first <= slot <= last), None)
        return found

    @property
    def nodes(self) -> Sequence[str]:
        """All nodes that serve slots."""
        return tuple(dict.fromkeys(node for _, _, node in self.ranges))

    def read(self, answer: Any, asked: str) -> SlotMap:
        """The map in an answer to CLUSTER SLOTS. A node that does not know its own name is the one that was asked."""
        host, _, _ = asked.rpartition(":")
        ranges = []
        for first, last, master, *_ in answer or ():
            name = (master[0] or b"").decode()
            ranges.append((int(first), int(last), f"{name if name and name != '?' else host}:{int(master[1])}"))
        return SlotMap(self.version + 1, ranges)

    def with_moved(self, slot: int, node: str) -> SlotMap:
        """A node has said where a slot is now."""
        return SlotMap(self.version + 1, self.ranges, {**self.moved, slot: node})


def slot_of(key: str | bytes) -> int:
    """The slot of a key."""
    data = key.encode() if isinstance(key, str) else key
    start = data.find(b"{") + 1
    if start:
        end = data.find(b"}", start)
        if end > start:
            data = data[start:end]
    return crc_hqx(data, 0) % SLOTS


def tagged(prefix: str, tag: str) -> str:
    """The prefix of all keys with a tag."""
    return f"{prefix}{{{tag}}}:"


def queue_tag(queue: str) -> str:
    """The tag of a queue: its name, without what would end a tag."""
    return queue.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") or "%"


@lru_cache(maxsize=1)
def bucket_tags() -> tuple[str, ...]:
    """The tags of the buckets: of each part of the slots the smallest number whose slot lies in it."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < BUCKETS:
        found.setdefault(slot_of(f"r{number}") * BUCKETS // SLOTS, f"r{number}")
        number += 1
    return tuple(found[bucket] for bucket in range(BUCKETS))


def bucket_of(name: str) -> int:
    """The bucket of a task's result, or of a chord."""
    return crc_hqx(name.encode("utf-8", "surrogatepass"), 0) % BUCKETS
