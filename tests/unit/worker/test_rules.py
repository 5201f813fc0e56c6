"""What follows from rules: for one process's book of them, and for a fetcher that claims by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.codec.signing import Signer
from celeriac.exceptions import OperationalError
from celeriac.model import outcome as o
from celeriac.model.message import Delivery
from celeriac.model.rules import Order, Rule, RulesRead, encode_order, stamp_key, stamp_keys
from celeriac.model.settle import Release
from celeriac.worker import fetcher as fetching
from celeriac.worker import rules as rulebook
from celeriac.worker.rules import RuleBook, from_wire, to_wire
from tests.unit.worker.bench import FetcherBench
from tests.unit.worker.fakes import FakeBroker, delivery, malformed, message, until

NOW = 1_000.0


def rule(key: str, epoch: int = 1, expires: float | None = None, **order: Any) -> Rule:
    return Rule(key, encode_order(Order(**order)), expires, epoch)


def book(*rules: Rule, epoch: int = 1) -> RuleBook:
    made = RuleBook()
    made.learn(RulesRead(epoch, rules, True), NOW)
    return made


# -- the book --------------------------------------------------------------------------------------------------------


def test_nothing_is_refused_at_first() -> None:
    empty = RuleBook()
    assert (empty.epoch, empty.refuses, empty.paused, empty.in_force()) == (0, False, frozenset(), [])
    assert empty.refusal(message(), NOW) is None


def test_who_and_why() -> None:
    known = book(rule("revoke:a", by="alice", reason="wrong"))
    assert known.refuses
    refusal = known.refusal(message(id="a"), NOW)
    assert refusal == o.Revoked("revoked", by="alice", why="wrong")
    assert str(refusal) == "revoked by alice: wrong"
    assert known.refusal(message(id="b"), NOW) is None
    assert known.refusal(malformed(id="a").message, NOW) is not None


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (o.Revoked("revoked"), "revoked"),
        (o.Revoked("expired"), "expired"),
        (o.Revoked("terminated", 9, "me"), "terminated by me"),
        (o.Revoked("revoked", why="x"), "revoked: x"),
    ],
)
def test_what_the_result_says(outcome: o.Revoked, text: str) -> None:
    assert str(outcome) == text


def test_a_value_that_cannot_be_read_revokes_all_the_same() -> None:
    assert book(Rule("revoke:a", b"\xff")).refusal(message(id="a"), NOW) == o.Revoked("revoked")


def test_expired_rules_do_not_count() -> None:
    known = book(rule("revoke:a", expires=NOW + 5))
    assert known.refusal(message(id="a"), NOW + 4) is not None
    assert known.refusal(message(id="a"), NOW + 5) is None
    known.learn(RulesRead(2, ()), NOW + rulebook._FORGET + 1)
    assert known.revoked == {}


def test_changes_and_ends() -> None:
    known = book(rule("revoke:a"), rule("pause:q", 2), rule("stamp:c=1", 3), rule("rate:t", 4), epoch=4)
    assert (list(known.revoked), known.paused, list(known.others)) == (["a"], {"q"}, ["rate:t"])
    new = known.learn(RulesRead(6, [Rule("revoke:a", None, None, 5), Rule("pause:q", None, None, 6)]), NOW)
    assert [each.key for each in new] == ["revoke:a", "pause:q"]
    assert (list(known.revoked), known.paused, known.epoch) == ([], frozenset(), 6)
    assert known.refuses, "a stamp is left"


def test_a_complete_reading_replaces_all() -> None:
    known = book(rule("revoke:a"), rule("pause:q"), rule("stamp:c=1"))
    new = known.learn(RulesRead(9, [rule("revoke:b", 9)], True), NOW)
    assert (list(known.revoked), known.paused, [each.key for each in new]) == (["b"], frozenset(), ["revoke:b"])


def test_a_server_that_lost_its_data_begins_anew() -> None:
    known = book(rule("revoke:a", 50), epoch=50)
    new = known.learn(RulesRead(3, [rule("revoke:b", 3)], True), NOW)
    assert ([each.key for each in new], list(known.revoked), known.epoch) == (["revoke:b"], ["b"], 3)


def test_what_was_read_is_newer_than_what_is_heard() -> None:
    known = book(epoch=10)
    known.hear([rule("pause:old", 9), rule("pause:same", 10), rule("pause:new", 11), rule("pause:local", 0)])
    assert known.paused == {"new", "local"}


def test_the_book_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulebook, "RULES_LIMIT", 3)
    known = book(*(rule(f"revoke:{number}", number) for number in range(1, 6)), rule("pause:q", 6), epoch=6)
    assert (list(known.revoked), known.paused) == (["3", "4", "5"], {"q"})


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"stamped_headers": ["customer"], "stamps": {"customer": "17"}}, True),
        ({"stamped_headers": ["customer"], "stamps": {"customer": ["1", "17"]}}, True),
        ({"stamped_headers": ["customer"], "stamps": {"customer": 17}}, True),
        ({"stamped_headers": ["customer"], "stamps": {"customer": "18"}}, False),
        ({"stamped_headers": ["other"], "stamps": {"customer": "17"}}, False),
        ({"stamps": {"customer": "17"}}, True),
        ({"stamped_headers": [5, None], "stamps": {"customer": "17"}}, False),
        ({"stamped_headers": ["customer"], "stamps": 5}, False),
        ({}, False),
    ],
)
def test_stamps(headers: dict[str, Any], refused: bool) -> None:
    known = book(rule("stamp:customer=17"))
    assert (known.refusal(message(headers=headers), NOW) is not None) is refused
    assert known.refusal(malformed().message, NOW) is None


def test_keys_of_stamps() -> None:
    assert stamp_keys({"a": 1, "b": ["x", 2]}) == ["stamp:a=1", "stamp:b=x", "stamp:b=2"]
    assert stamp_key("a", "b=c") == "stamp:a=b=c"


def test_sorting() -> None:
    known = book(rule("revoke:a"), rule("pause:other"))
    one, two = delivery(id="a"), delivery(id="b")
    three = Delivery(message=message(id="c"), token="t", queue="other")
    assert known.sort([one, two, three], NOW) == ([two], [three], [(one, o.Revoked("revoked"))])


def test_over_the_wire() -> None:
    rules = [rule("revoke:a", 5, 7.5, by="ü"), Rule("pause:q", None, None, 6), Rule("x", b"\x00\xff", None, 7)]
    assert from_wire(to_wire(rules)) == rules


# -- a fetcher ---------------------------------------------------------------------------------------------------------


class RuledBroker(FakeBroker):
    """Keeps rules; its claims tell ``epoch``."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.known: list[Rule] = []

    def rule(self, *rules: Rule) -> None:
        self.known += rules
        self.epoch = self.known[-1].epoch

    async def rules(self, after: int = 0) -> RulesRead:
        self.log.append(("rules", after))
        self.faults.meet("rules")
        return RulesRead(self.epoch, [each for each in self.known if each.epoch > after], after == 0)

    async def set_rules(self, changes: Sequence[Any]) -> int:
        self.log.append(("set_rules", [each.key for each in changes]))
        self.faults.meet("set_rules")
        self.rule(*(Rule(each.key, each.value, None, self.epoch + n) for n, each in enumerate(changes, 1)))
        return self.epoch

    async def withdraw(self, ids: Any, queues: Sequence[str]) -> Sequence[Delivery]:
        self.log.append(("withdraw", (sorted(ids), list(queues))))
        return self.orphaned


@pytest.fixture
def ruled() -> FetcherBench:
    return FetcherBench(broker=RuledBroker())


def asked(bench: FetcherBench, what: str = "rules") -> list[Any]:
    return [how for name, how in bench.broker.log if name == what]


def broker_of(bench: FetcherBench) -> RuledBroker:
    assert isinstance(bench.broker, RuledBroker)
    return bench.broker


def test_no_rules_no_question(ruled: FetcherBench) -> None:
    asyncio.run(ruled.fetcher.admit([delivery()]))
    assert asked(ruled) == []


def test_rules_of_the_claim_are_read_before_it_is_admitted(ruled: FetcherBench) -> None:
    broker_of(ruled).rule(rule("revoke:a", 5, by="me"))
    one, two = delivery(id="a"), delivery(id="b")
    asyncio.run(ruled.fetcher.admit([one, two]))
    assert (ruled.sync.inbox, ruled.outcome(one)) == ([two], o.Revoked("revoked", by="me"))
    asyncio.run(ruled.fetcher.admit([delivery(id="c")]))
    assert asked(ruled) == [0], "once"


def test_an_outage_delays_what_was_claimed(ruled: FetcherBench) -> None:
    """It is held, and so renewed; it is not admitted by rules that may be old."""
    broker_of(ruled).rule(rule("revoke:a", 5))
    broker_of(ruled).faults.away("rules", 3)
    one = delivery(id="a")
    asyncio.run(ruled.fetcher.admit([one]))
    assert (ruled.sync.inbox, ruled.outcome(one)) == ([], o.Revoked("revoked"))
    assert asked(ruled) == [0, 0, 0, 0]


def test_stopping_meanwhile_gives_it_back(ruled: FetcherBench) -> None:
    broker_of(ruled).rule(rule("revoke:a", 5))
    broker_of(ruled).faults.away("rules", 1_000_000)
    one = delivery(id="b")

    async def main() -> None:
        admitting = asyncio.create_task(ruled.fetcher.admit([one]))
        await until(lambda: len(asked(ruled)) > 3)
        assert one.token in ruled.fetcher.held
        ruled.fetcher.stop()
        await admitting

    asyncio.run(main())
    assert (ruled.sync.inbox, ruled.concluded[0].settlement) == ([], Release(one))


def test_revoked_before_its_time(ruled: FetcherBench) -> None:
    """Not sent to the schedule, where nobody would look for it until it is due."""
    broker_of(ruled).rule(rule("revoke:a", 5))
    one = delivery(id="a", due=time.time() + 1_000)
    asyncio.run(ruled.fetcher.admit([one]))
    assert ruled.outcome(one) == o.Revoked("revoked")


def test_what_slipped_through_a_pause_goes_back(ruled: FetcherBench) -> None:
    broker_of(ruled).rule(rule("pause:celery", 5))
    one = delivery()
    asyncio.run(ruled.fetcher.admit([one]))
    assert (ruled.sync.inbox, ruled.concluded[0].settlement) == ([], Release(one))
    assert ruled.runner.outcomes == [], "uncounted"


def test_what_has_not_started_is_sorted_out(ruled: FetcherBench) -> None:
    revoked, other = delivery(id="a"), delivery(id="b")
    paused = Delivery(message=message(id="c"), token="t", queue="other")
    asyncio.run(ruled.fetcher.admit([revoked, other, paused]))
    assert len(ruled.sync.inbox) == 3
    ruled.rules.hear([rule("revoke:a"), rule("pause:other")])
    ruled.fetcher.ruled()
    assert ruled.sync.inbox == [other]
    assert (ruled.outcome(revoked), ruled.outcome(paused)) == (o.Revoked("revoked"), o.Unstarted())


def test_a_paused_queue_is_not_claimed_from_until_it_is_resumed(
    ruled: FetcherBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PAUSED_LOOK", 0.0)
    broker = broker_of(ruled)
    ruled.fetcher.queues[:] = ["celery"]
    broker.rule(rule("pause:celery", 5))

    async def claim(limit: int, wait: float) -> Sequence[Delivery]:
        await asyncio.sleep(0)
        return []

    broker.claim_with = claim

    async def main() -> None:
        running = asyncio.create_task(ruled.fetcher.run())
        await until(lambda: asked(ruled))
        before = len(asked(ruled, "claim"))
        assert before == 1
        await until(lambda: len(asked(ruled)) >= 5)
        assert len(asked(ruled, "claim")) == before, "it only looks whether it is resumed"
        broker.rule(Rule("pause:celery", None, None, 6))
        await until(lambda: len(asked(ruled, "claim")) > before)
        ruled.fetcher.stop()
        await running

    asyncio.run(main())


def test_a_node_whose_queues_are_all_paused_says_that_the_broker_is_away(
    ruled: FetcherBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the rules is asked for then."""
    monkeypatch.setattr(fetching, "PAUSED_LOOK", 0.0)
    broker, seen = broker_of(ruled), list[bool]()
    ruled.rules.learn(RulesRead(5, [rule("pause:celery", 5)], True), NOW)
    reads = broker.rules

    async def rules(after: int = 0) -> RulesRead:
        seen.append(ruled.fetcher.connected)
        return await reads(after)

    monkeypatch.setattr(broker, "rules", rules)
    broker.faults.away("rules", 2)

    async def main() -> None:
        running = asyncio.create_task(ruled.fetcher.run())
        await until(lambda: len(seen) >= 4)
        ruled.fetcher.stop()
        await running

    asyncio.run(main())
    assert seen[:4] == [True, False, False, True]


def test_rules_end_by_the_brokers_clock(ruled: FetcherBench) -> None:
    """Ours may have jumped, and nobody would read again what was forgotten then."""
    ruled.runner.now = lambda: NOW
    broker_of(ruled).rule(rule("revoke:a", 5, NOW + 1_800), rule("revoke:b", 6, NOW + 1_800))
    claimed, waiting = delivery(id="a"), delivery(id="b")
    asyncio.run(ruled.fetcher.admit([claimed]))
    assert ruled.outcome(claimed) == o.Revoked("revoked")
    ruled.sync.feed([waiting])
    ruled.fetcher.ruled()
    assert ruled.outcome(waiting) == o.Revoked("revoked")


def test_one_of_two_queues_is_paused(ruled: FetcherBench) -> None:
    broker = broker_of(ruled)
    ruled.fetcher.queues[:] = ["celery", "other"]
    ruled.rules.learn(RulesRead(5, [rule("pause:other", 5)], True), NOW)
    broker.epoch = 5

    async def claim(limit: int, wait: float) -> Sequence[Delivery]:
        ruled.fetcher.stop()
        return []

    broker.claim_with = claim
    asyncio.run(ruled.fetcher.run())
    ((queues, _, wait),) = asked(ruled, "claim")
    assert (queues, wait) == (["celery"], fetching.PAUSED_LOOK)


def test_a_broker_that_is_away_raises_nothing_here() -> None:
    bench = FetcherBench(broker=RuledBroker())
    broker_of(bench).faults.plan("rules", OperationalError("away"), None)
    broker_of(bench).rule(rule("revoke:a", 5))
    asyncio.run(bench.fetcher.admit([delivery(id="b")]))
    assert len(bench.sync.inbox) == 1


# -- signed rules ----------------------------------------------------------------------------------------------------


def test_only_signed_rules_count_where_there_is_a_key(caplog: pytest.LogCaptureFixture) -> None:
    signer, stranger = Signer(b"a key of sixteen bytes"), Signer(b"another key, of somebody")
    own, pause = rule("revoke:a", 2, by="me"), rule("pause:q", 3)
    sealed = [replace(each, value=signer.seal("rule", each.key, each.value or b"")) for each in (own, pause)]
    forged = [
        rule("revoke:b", 4),
        replace(own, key="revoke:c", value=stranger.seal("rule", "revoke:c", own.value or b"")),
        replace(sealed[0], key="revoke:moved"),
        Rule("searched:q", b"99999", None, 7),
    ]
    known = RuleBook(signer)
    new = known.learn(RulesRead(7, [*sealed, *forged], True), NOW)
    assert new == [own, pause], "as they were before they were signed: children are told these"
    assert (list(known.revoked), known.paused, known.others) == (["a"], {"q"}, {})
    assert known.epoch == 7, "they are not read again"
    assert "4 rules of the fleet are not obeyed, first revoke:b: they are not signed" in caplog.text
    assert known.learn(RulesRead(8, [Rule("revoke:a", None, None, 8)]), NOW), "who can delete can delete"
    assert known.revoked == {}


def test_signed_rules_are_read_without_a_key_too() -> None:
    signer = Signer(b"a key of sixteen bytes")
    own = rule("revoke:a", by="me")
    known = book(replace(own, value=signer.seal("rule", own.key, own.value or b"")))
    assert known.refusal(message(id="a"), NOW) == o.Revoked("revoked", by="me")
