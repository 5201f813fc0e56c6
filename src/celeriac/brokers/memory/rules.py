"""Rules in memory: plain synchronous state, called under the server's lock. ``now`` is seconds since the epoch."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.model.rules import PAUSE, REVOKE, RULES_LIMIT, TOMBSTONE, Rule, RuleChange, RulesRead

__all__ = ["RuleTable"]


class RuleTable:
    """All rules of one server, dropped ones for a while included."""

    __slots__ = ("_floor", "_rules", "epoch")

    def __init__(self) -> None:
        self.epoch = 0
        #: Every dropped rule that is forgotten began an epoch up to this one.
        self._floor = 0
        #: By key, in the order of their changes.
        self._rules: dict[str, Rule] = {}

    def set(self, changes: Sequence[RuleChange], now: float) -> int:
        """See ``Rules.set_rules``."""
        for change in changes:
            self.epoch = max(self.epoch + 1, int(now * 1000))
            life = TOMBSTONE if change.value is None else change.expires
            self._rules.pop(change.key, None)  # the newest goes to the end
            until = None if life is None else now + life
            self._rules[change.key] = Rule(change.key, change.value, until, self.epoch)
        if changes:
            self._trim(now)
        return self.epoch

    def _trim(self, now: float) -> None:
        for rule in [rule for rule in self._rules.values() if rule.expires is not None and rule.expires <= now]:
            del self._rules[rule.key]
            if rule.value is None:
                self._floor = max(self._floor, rule.epoch)
        revoked = [key for key in self._rules if key.startswith(REVOKE)]
        for key in revoked[: max(0, len(revoked) - RULES_LIMIT)]:
            del self._rules[key]

    def read(self, after: int) -> RulesRead:
        """See ``Rules.rules``."""
        if after < max(self._floor, 1) or after > self.epoch:
            return RulesRead(self.epoch, [rule for rule in self._rules.values() if rule.value is not None], True)
        return RulesRead(self.epoch, [rule for rule in self._rules.values() if rule.epoch > after])

    def pauses(self, queue: str, now: float) -> bool:
        """Whether this queue is paused."""
        rule = self._rules.get(PAUSE + queue)
        return rule is not None and rule.value is not None and (rule.expires is None or rule.expires > now)

    def named(self, prefix: str) -> RulesRead:
        """See ``RulesDesk.rules``."""
        read = self.read(0)
        return RulesRead(read.epoch, [rule for rule in read.rules if rule.key.startswith(prefix)], True)
