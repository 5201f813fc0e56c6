"""Which schedulers run: what each says of itself in the ledger, now and then. Used by the scheduler and ``desk.py``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from celeriac.model.ledger import Change
from celeriac.ports import BlockingLedger

__all__ = ["EVERY", "Seen", "read_seen", "write_seen"]

#: Seconds between two words of a scheduler, and for which one counts.
EVERY: Final = 10.0
LASTS: Final = 35.0
_KEY: Final = "beat:seen"
#: Others may write at the same moment.
_TRIES: Final = 5


class Seen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One scheduler, as it saw itself ``at`` that moment. Times in seconds, moments since the epoch."""

    at: float
    host: str
    pid: int
    version: str = ""
    entries: int = 0
    #: Tasks sent since it started.
    sent: int = 0
    #: When it last looked at what is due, and when it expected the next slot; None: it knows of none.
    tick: float = 0.0
    next: float | None = None
    #: Median, 99th percentile and most of how late the last 1,000 tasks were sent; None: it has sent none.
    late: tuple[float, float, float] | None = None
    #: Seconds by which its machine's clock is ahead of the server's.
    skew: float = 0.0
    #: It is part of a worker (``-B``).
    embedded: bool = False

    def plain(self) -> dict[str, Any]:
        """In JSON's types, moments in ISO 8601, as people are shown it."""
        late = self.late or (None, None, None)
        return {
            "host": self.host,
            "pid": self.pid,
            "embedded": self.embedded,
            "version": self.version,
            "entries": self.entries,
            "sent": self.sent,
            "last_tick": _iso(self.tick),
            "next": None if self.next is None else _iso(self.next),
            "late": dict(zip(("p50", "p99", "max"), late, strict=True)),
            "skew": self.skew,
        }


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


_decode = msgspec.json.Decoder(dict[str, Seen]).decode


def read_seen(ledger: BlockingLedger, now: float, *, timeout: float) -> Mapping[str, Seen]:
    """The schedulers that were heard of lately, by ``host:pid``. Raises ``OperationalError``."""
    return _lately(ledger.read([_KEY], timeout=timeout)[0], now)


def write_seen(ledger: BlockingLedger, name: str, seen: Seen | None, now: float, *, timeout: float) -> None:
    """Put in what a scheduler says, or take it out. Given up where others are always faster. Raises
    ``OperationalError``."""
    for _ in range(_TRIES):
        (there,) = ledger.read([_KEY], timeout=timeout)
        known = dict(_lately(there, now))
        known.pop(name, None)
        if seen is not None:
            known[name] = seen
        body = msgspec.json.encode(known) if known else None
        if body == there or ledger.change([Change(_KEY, body, there, 2 * LASTS)], timeout=timeout)[0]:
            return


def _lately(raw: bytes | None, now: float) -> Mapping[str, Seen]:
    if raw is None:
        return {}
    try:
        known = _decode(raw)
    except msgspec.MsgspecError:
        return {}
    return {name: seen for name, seen in known.items() if seen.at > now - LASTS}
