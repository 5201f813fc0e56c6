"""Rules: the few facts that every worker of a fleet must obey, whoever wrote them and whenever the worker started.

A task is revoked, a queue is paused, tasks with a stamp are revoked. Producers write them to the broker; ``Broker``
tells with each claim whether they changed (``ports.Rules``); ``worker/rules.py`` obeys them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

__all__ = [
    "PAUSE",
    "REVOKE",
    "RULES_LIMIT",
    "SEARCHED",
    "STAMP",
    "TOMBSTONE",
    "Order",
    "Rule",
    "RuleChange",
    "RulesRead",
    "decode_order",
    "encode_order",
    "stamp_key",
    "stamp_keys",
]

#: What keys begin with: ``revoke:<task id>``, ``pause:<queue>``, ``stamp:<header>=<value>``; and
#: ``searched:<queue>``, the epoch up to which the messages that wait in a queue were searched for revoked ones.
REVOKE, PAUSE, STAMP, SEARCHED = "revoke:", "pause:", "stamp:", "searched:"
#: Revoked ids that are kept at most, the newest (Celery's REVOKES_MAX, there for each worker).
RULES_LIMIT = 50_000
#: Seconds for which a dropped rule is remembered, so that readers hear of its end.
TOMBSTONE = 86_400.0


class RuleChange(Struct, frozen=True, gc=False):
    """A rule to write for ``expires`` seconds (None: until it is dropped), or to drop when ``value`` is None."""

    key: str
    value: bytes | None
    expires: float | None = None


class Rule(Struct, frozen=True, gc=False):
    """A rule as it is read: ``value`` None says that it was dropped. ``expires`` in seconds since the epoch."""

    key: str
    value: bytes | None
    expires: float | None = None
    #: The epoch that its last change began.
    epoch: int = 0


class RulesRead(Struct, frozen=True):
    """What a reader learns: the epoch now, and the rules that changed, in the order of their changes.

    ``complete``: these are all there are; what the reader knew before and is not among them is gone.
    """

    epoch: int
    rules: Sequence[Rule] = ()
    complete: bool = False


class Order(Struct, frozen=True, omit_defaults=True, gc=False):
    """The value of a rule that people give: who, why, when (seconds since the epoch).

    ``terminate`` and ``signal`` are for revoked tasks that run.
    """

    by: str = ""
    reason: str = ""
    at: float = 0.0
    terminate: bool = False
    signal: str = "SIGTERM"


encode_order = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Order).decode


def decode_order(value: bytes) -> Order:
    """The order in a value; whatever it holds, the rule counts."""
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return Order()


def stamp_key(header: str, value: object) -> str:
    """The key of the rule for one value of a stamp."""
    return f"{STAMP}{header}={value}"


def stamp_keys(headers: Mapping[str, Any]) -> list[str]:
    """The keys for stamps as they are revoked: each with one value, or a list of them."""
    return [
        stamp_key(header, value)
        for header, values in headers.items()
        for value in (values if isinstance(values, (list, tuple, set, frozenset)) else (values,))
    ]
