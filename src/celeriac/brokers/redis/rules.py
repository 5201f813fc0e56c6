"""Rules of the fleet on Redis, for both sides: what the scripts are told, and what their answers mean. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.brokers.redis.sockets import Word
from celeriac.model.rules import REVOKE, RULES_LIMIT, TOMBSTONE, Rule, RuleChange, RulesRead

__all__ = ["change_args", "rules_read"]


def change_args(changes: Sequence[RuleChange]) -> list[Word]:
    """The arguments of ``rules_set.lua``."""
    args: list[Word] = [TOMBSTONE, RULES_LIMIT, REVOKE]
    for change in changes:
        way = "drop" if change.value is None else "set"
        args += (change.key, way, change.value or b"", "" if change.expires is None else change.expires)
    return args


def rules_read(answer: Sequence[Any]) -> RulesRead:
    """What ``rules_read.lua`` has answered."""
    epoch, complete, flat, _ = answer
    rules = [
        Rule(key.decode("utf-8", "replace"), value, float(ends) if ends else None, int(float(began)))
        for key, value, ends, began in zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
    ]
    return RulesRead(int(epoch), rules, bool(complete))
