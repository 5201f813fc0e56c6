"""What a process knows of the fleet's rules, and what follows from them for a message.

A child asks it for every batch that it claims; an agent for what runs, waits and was left by the dead. Pure but for the
clock that is passed in: who reads the broker is ``Fetcher`` and ``Enforcer``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from celeriac.codec.rules import trusted
from celeriac.codec.signing import Signer
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Malformed, Message
from celeriac.model.rules import PAUSE, REVOKE, RULES_LIMIT, STAMP, Order, Rule, RulesRead, decode_order, stamp_key

__all__ = ["RuleBook", "from_wire", "to_wire"]

#: Seconds between two looks for rules whose time is over; until then they are known and do not count.
_FORGET = 60.0


class RuleBook:
    """The rules as of ``epoch``. Changed on the I/O loop only."""

    def __init__(self, signer: Signer | None = None) -> None:
        #: That of remote commands: what was read counts only with its signature.
        self.signer = signer
        self.epoch = 0
        #: Revoked tasks by id, in the order of their rules; expired rules may be among them.
        self.revoked: dict[str, Rule] = {}
        self.paused: frozenset[str] = frozenset()
        self._stamps: dict[str, Rule] = {}
        self._pauses: dict[str, Rule] = {}
        self._forget_at = 0.0
        #: Other rules by key.
        self.others: dict[str, Rule] = {}

    def learn(self, read: RulesRead, now: float) -> Sequence[Rule]:
        """Take over what was read from the broker; returns what is new. Unsigned rules do not count, where there is a
        key."""
        before, rules = self.epoch, trusted(self.signer, read.rules)
        if read.complete:
            for table in (self.revoked, self._stamps, self._pauses, self.others):
                table.clear()
        self.epoch = read.epoch
        self._take(rules)
        if now >= self._forget_at:
            self._forget(now)
        return [rule for rule in rules if rule.epoch > before or read.epoch < before]

    def hear(self, rules: Iterable[Rule]) -> None:
        """Take over what the agent says, which has checked it; what this process has read itself is newer."""
        self._take(rule for rule in rules if not 0 < rule.epoch <= self.epoch)

    def _take(self, rules: Iterable[Rule]) -> None:
        for rule in rules:
            table, name = self._place(rule.key)
            table.pop(name, None)
            if rule.value is not None:
                table[name] = rule
        while len(self.revoked) > RULES_LIMIT:
            del self.revoked[next(iter(self.revoked))]
        self.paused = frozenset(self._pauses)

    def _place(self, key: str) -> tuple[dict[str, Rule], str]:
        if key.startswith(REVOKE):
            return self.revoked, key[len(REVOKE) :]
        if key.startswith(PAUSE):
            return self._pauses, key[len(PAUSE) :]
        return (self._stamps if key.startswith(STAMP) else self.others), key

    def _forget(self, now: float) -> None:
        self._forget_at = now + _FORGET
        for table in (self.revoked, self._stamps, self.others):
            for name in [name for name, rule in table.items() if rule.expires is not None and rule.expires <= now]:
                del table[name]

    @property
    def refuses(self) -> bool:
        """Whether any message could be refused."""
        return bool(self.revoked or self._stamps)

    def order_for(self, message: Message | Malformed, now: float) -> Order | None:
        """The order that revokes this task, or None."""
        rule = self.revoked.get(message.id)
        if rule is None and self._stamps and not isinstance(message, Malformed):
            rule = self._stamped(message)
        if rule is None or rule.value is None or (rule.expires is not None and rule.expires <= now):
            return None
        return decode_order(rule.value)

    def refusal(self, message: Message | Malformed, now: float) -> o.Revoked | None:
        """Why a message is not to run, or None."""
        order = self.order_for(message, now)
        return None if order is None else o.Revoked("revoked", by=order.by, why=order.reason)

    def sort(
        self, deliveries: Sequence[Delivery], now: float
    ) -> tuple[list[Delivery], list[Delivery], list[tuple[Delivery, o.Revoked]]]:
        """What may run, what belongs to a paused queue, and what is refused."""
        good: list[Delivery] = []
        paused: list[Delivery] = []
        refused: list[tuple[Delivery, o.Revoked]] = []
        for delivery in deliveries:
            outcome = self.refusal(delivery.message, now)
            if outcome is not None:
                refused.append((delivery, outcome))
            else:
                (paused if delivery.queue in self.paused else good).append(delivery)
        return good, paused, refused

    def _stamped(self, message: Message) -> Rule | None:
        stamps, names = message.headers.get("stamps"), message.headers.get("stamped_headers")
        if not isinstance(stamps, dict):
            return None
        for name in names if isinstance(names, list) else stamps:
            values = stamps.get(name) if isinstance(name, str) else None
            for value in values if isinstance(values, list) else (values,):
                rule = self._stamps.get(stamp_key(name, value))
                if rule is not None:
                    return rule
        return None

    def in_force(self) -> list[Rule]:
        """All of them, as a child is told that starts later."""
        tables = (self.revoked, self._stamps, self._pauses, self.others)
        return [rule for table in tables for rule in table.values()]


def to_wire(rules: Iterable[Rule]) -> list[list[Any]]:
    """Rules as the agent tells them to its children, in JSON."""
    return [
        [rule.key, None if rule.value is None else rule.value.decode("latin-1"), rule.expires, rule.epoch]
        for rule in rules
    ]


def from_wire(rules: Iterable[Sequence[Any]]) -> list[Rule]:
    """What ``to_wire`` has made."""
    return [Rule(key, None if value is None else value.encode("latin-1"), *rest) for key, value, *rest in rules]
