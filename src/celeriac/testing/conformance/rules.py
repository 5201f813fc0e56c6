"""Conformance: ``Rules`` and ``RulesDesk``: facts that all workers must obey, and how they hear of changes."""

from __future__ import annotations

import asyncio
import time

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.rules import TOMBSTONE, Rule, RuleChange, RulesRead
from celeriac.ports import Broker, Rules, RulesDesk, Timekeeper
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import accept, asynchronous, ids, message, take

__all__ = ["RulesTheme"]


def rules_of(harness: Harness, broker: Broker) -> Rules:
    """The broker as one that keeps rules; skips the test when it does not."""
    if not isinstance(broker, Rules):
        harness.cannot("keep rules")
    return broker


def _desk(harness: Harness) -> RulesDesk:
    publisher = harness.publisher()
    if not isinstance(publisher, RulesDesk):
        harness.cannot("keep rules")
    return publisher


def _values(read: RulesRead) -> dict[str, bytes | None]:
    return {rule.key: rule.value for rule in read.rules}


def _set(*keys: str, value: bytes = b"v") -> list[RuleChange]:
    return [RuleChange(key, value) for key in keys]


class RulesTheme:
    """``epoch``, ``rules``, ``set_rules``, on both sides."""

    @asynchronous
    async def test_no_rules_at_first(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = rules_of(harness, broker)
        assert rules.epoch == 0, "epoch: 0 before the first claim"
        await take(broker)
        assert rules.epoch == 0, "epoch: 0 while no rule was ever written"
        assert await rules.rules() == RulesRead(0, [], True), "rules: nothing, and that is all"
        assert await rules.set_rules([]) == 0, "set_rules: no change begins no epoch"

    @asynchronous
    async def test_what_changed_is_read(self, harness: Harness) -> None:
        rules, other = await self._two(harness)
        first = await rules.set_rules(_set("a:1", "a:2", "ü\n:3", value=b'\x00\xff"'))
        assert first > 0, "set_rules: returns the last epoch"
        read = await other.rules()
        assert read.complete, "rules: after 0 all that are in force"
        assert _values(read) == dict.fromkeys(("a:1", "a:2", "ü\n:3"), b'\x00\xff"'), "rules: keys and values as given"
        assert [rule.key for rule in read.rules] == ["a:1", "a:2", "ü\n:3"], "rules: in the order of their changes"
        epochs = [rule.epoch for rule in read.rules]
        assert epochs == sorted(set(epochs)), "set_rules: each change begins an epoch of its own"
        assert read.epoch == epochs[-1] == first, "rules: the epoch now"
        second = await rules.set_rules([RuleChange("a:2", b"new"), RuleChange("a:4", b"v"), RuleChange("a:1", None)])
        later = await other.rules(first)
        assert not later.complete, "rules: what changed only"
        assert _values(later) == {"a:2": b"new", "a:4": b"v", "a:1": None}, "rules: written or dropped since"
        assert later.epoch == second > first, "rules: later epochs are higher"
        assert _values(await other.rules(second)) == {}, "rules: nothing since"
        everything = await other.rules()
        assert sorted(_values(everything)) == ["a:2", "a:4", "ü\n:3"], "rules: dropped ones are not in force"

    @staticmethod
    async def _two(harness: Harness) -> tuple[Rules, Rules]:
        one, two = await harness.open_broker(), await harness.open_broker()
        return rules_of(harness, one), rules_of(harness, two)

    @asynchronous
    async def test_an_epoch_of_another_life_reads_all(self, harness: Harness) -> None:
        rules, _ = await self._two(harness)
        epoch = await rules.set_rules(_set("a", "b"))
        read = await rules.rules(epoch + 1_000_000)
        assert read.complete, "rules: an epoch that this server does not know reads all"
        assert sorted(_values(read)) == ["a", "b"]
        assert read.epoch == epoch, "rules: the epoch now, though it is lower"

    @asynchronous
    async def test_dropping_what_is_not_there(self, harness: Harness) -> None:
        rules, other = await self._two(harness)
        epoch = await rules.set_rules([RuleChange("a", None)])
        assert epoch > 0
        read = await other.rules()
        assert _values(read) == {}, "rules: dropped ones are not in force"

    @asynchronous
    async def test_rules_end(self, harness: Harness) -> None:
        rules, other = await self._two(harness)
        begin = harness.now()
        soon = harness.soon
        await rules.set_rules(
            [RuleChange("short", b"", soon), RuleChange("long", b"", 3600.0), RuleChange("ever", b"")]
        )
        by_key = {rule.key: rule for rule in (await other.rules()).rules}
        assert by_key["ever"].expires is None, "set_rules: until it is dropped"
        for key, life in (("short", soon), ("long", 3600.0)):
            until = by_key[key].expires
            assert until is not None
            assert begin + life - 1 <= until <= begin + life + 1 + harness.late, "rules: until when, since the epoch"
        await harness.lapse(soon * 1.5)
        await rules.set_rules(_set("next"))
        read = await other.rules()
        in_force = {rule.key for rule in read.rules if rule.expires is None or rule.expires > harness.now()}
        assert in_force == {"long", "ever", "next"}, "rules: their time is over"
        epoch = await rules.set_rules([RuleChange("long", b"renewed", None)])
        (renewed,) = (await other.rules(epoch - 1)).rules
        assert renewed == Rule("long", b"renewed", None, epoch), "set_rules: the last writing counts"

    @asynchronous
    async def test_reading_tells_the_servers_time(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        broker = await harness.open_broker()
        rules, real = rules_of(harness, broker), time.time
        if not isinstance(broker, Timekeeper):
            return
        monkeypatch.setattr(time, "time", lambda: real() + 3600)
        await rules.rules()
        assert abs(broker.now() - real()) < 60, "now: as of the last reading of rules, by one who does not claim"

    @asynchronous
    async def test_dropped_rules_are_remembered_for_a_day(self, harness: Harness) -> None:
        if not harness.leaps:
            harness.cannot("let a day pass in no time")
        rules, other = await self._two(harness)
        before = await rules.set_rules(_set("a", "b"))
        await rules.set_rules([RuleChange("a", None)])
        await harness.elapse(TOMBSTONE - 10)
        await rules.set_rules(_set("c"))
        read = await other.rules(before)
        assert (read.complete, _values(read)) == (False, {"a": None, "c": b"v"}), "rules: heard of for a day"
        await harness.elapse(20)
        await rules.set_rules(_set("d"))
        read = await other.rules(before)
        assert read.complete, "rules: a reader that missed the end of a rule reads all"
        assert sorted(_values(read)) == ["b", "c", "d"]
        assert not (await other.rules(read.epoch)).complete, "rules: and then what changed only"

    @asynchronous
    async def test_a_claim_tells_the_epoch(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = rules_of(harness, broker)
        desk = _desk(harness)
        await broker.publish([message("a")])
        first = await asyncio.to_thread(desk.set_rules, _set("revoke:a"), timeout=5.0)
        taken = await take(broker, limit=1)
        assert ids(taken) == ["a"]
        assert rules.epoch == first, "epoch: a claim tells what was written before it"
        second = await rules.set_rules(_set("revoke:b"))
        assert await take(broker) == []
        assert rules.epoch == second, "epoch: one that takes nothing, too"
        await accept(broker, taken)

    @asynchronous
    async def test_no_claim_misses_a_rule(self, harness: Harness) -> None:
        """Messages and rules in turns: whoever takes a message knows of all rules that were written before it was
        sent."""
        broker, writer = await harness.open_broker(), await harness.open_broker()
        rules, writing = rules_of(harness, broker), rules_of(harness, writer)
        for number in range(50):
            epoch = await writing.set_rules(_set(f"revoke:{number}"))
            await writer.publish([message(f"m{number}")])
            (delivery,) = await take(broker, limit=1)
            assert rules.epoch == epoch, "epoch: of the moment of the claim"
            await accept(broker, [delivery])

    @asynchronous
    async def test_waiting_ends_when_rules_change(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        rules = rules_of(harness, broker)
        desk = _desk(harness)
        await rules.set_rules(_set("before"))
        await take(broker)
        waiting = asyncio.ensure_future(broker.claim(["q"], limit=1, wait=20.0))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "claim: waits while the rules stay as they are"
        begin = time.monotonic()
        epoch = await asyncio.to_thread(desk.set_rules, _set("pause:q"), timeout=5.0)
        async with asyncio.timeout(1.0 + harness.late):
            assert list(await waiting) == [], "claim: with nothing"
        assert time.monotonic() - begin <= 1.0 + harness.late, "claim: a wait ends when the rules change"
        assert rules.epoch == epoch, "epoch: and tells the new one"

    @asynchronous
    async def test_the_desk(self, harness: Harness) -> None:
        desk, rules = _desk(harness), rules_of(harness, await harness.open_broker())
        epoch = await asyncio.to_thread(desk.set_rules, _set("pause:a", "pause:b", "revoke:c"), timeout=5.0)
        read = await asyncio.to_thread(desk.rules, "pause:", timeout=5.0)
        assert sorted(_values(read)) == ["pause:a", "pause:b"], "rules: those whose keys begin so"
        assert read.epoch == epoch == (await rules.rules()).epoch, "set_rules: the same rules on both sides"
        await asyncio.to_thread(desk.set_rules, [RuleChange("pause:a", None)], timeout=5.0)
        read = await asyncio.to_thread(desk.rules, "pause:", timeout=5.0)
        assert sorted(_values(read)) == ["pause:b"], "rules: in force"

    @asynchronous
    async def test_from_many_threads(self, harness: Harness) -> None:
        desk = _desk(harness)
        writing = [asyncio.to_thread(desk.set_rules, _set(f"r:{n}"), timeout=10.0) for n in range(20)]
        epochs = await asyncio.gather(*writing)
        assert len(set(epochs)) == 20, "set_rules: each change begins an epoch of its own, also in threads"
        read = await asyncio.to_thread(desk.rules, "r:", timeout=5.0)
        assert len(read.rules) == 20

    @asynchronous
    async def test_a_thousand_at_once(self, harness: Harness) -> None:
        rules, other = await self._two(harness)
        await rules.set_rules(_set(*(f"revoke:{number}" for number in range(1000))))
        read = await other.rules()
        assert [rule.key for rule in read.rules] == [f"revoke:{number}" for number in range(1000)]

    @asynchronous
    async def test_rules_need_the_server(self, harness: Harness) -> None:
        if harness.unreachable is None:
            harness.cannot("be unreachable")
        publisher = harness.publisher(url=harness.unreachable)
        if not isinstance(publisher, RulesDesk):
            harness.cannot("keep rules")
        for work in (
            lambda: publisher.set_rules(_set("a"), timeout=0.5),
            lambda: publisher.rules("", timeout=0.5),
        ):
            with pytest.raises(OperationalError):
                await asyncio.to_thread(work)
