"""Conformance: what ``Unified.finish`` does with chords, with records of other tasks, and with what it only holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from celeriac.model.chord import Closing, Part
from celeriac.model.message import Delivery
from celeriac.model.settle import Accept, Completion, DeadLetter, DeadReason, Hold, Release, Settlement, Verdict
from celeriac.ports import CHORD_LOOK, Broker, ResultStore
from celeriac.testing.conformance.chords import BODY, chord, part, value
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.results import record
from celeriac.testing.conformance.tools import ample, asynchronous, ids, message, messages, only, take, unified

__all__ = ["Joining"]

DONE, FENCED, COMPLETES, STEPWISE = Verdict.DONE, Verdict.FENCED, Verdict.COMPLETES, Verdict.STEPWISE


async def _servers(harness: Harness, **fields: Any) -> tuple[Broker, ResultStore]:
    broker, store = await harness.open_broker(**fields), await harness.open_store(**fields)
    unified(harness, broker)
    if broker.traits.server != store.traits.server:
        harness.cannot("keep deliveries and chords on one server")
    return broker, store


async def _finish(harness: Harness, broker: Broker, *completions: Completion) -> list[Verdict]:
    return list(await unified(harness, broker).finish(completions))


async def _lent(broker: Broker, *names: str) -> list[Delivery]:
    await broker.publish(messages(*names))
    return await take(broker)


def _ended(delivery: Delivery, *parts: Part, **fields: Any) -> Completion:
    return Completion(settlement=Accept(delivery), result=record(delivery.message.id), parts=parts, **fields)


async def _members(store: ResultStore, token: str, chord_id: str = "c") -> list[bytes] | None:
    found = await store.gather(chord_id, token=token)
    return None if found is None else list(found.parts)


async def _is_leased(broker: Broker, delivery: Delivery) -> bool:
    return list(await broker.extend([delivery])) == []


async def _stored(store: ResultStore, *names: str) -> list[str]:
    return [name for name, body in zip(names, await store.get(names), strict=True) if body is not None]


def _closing(held: Delivery | None, token: str, *follow_ups: str, chord_id: str = "c", **fields: Any) -> Completion:
    sent = [message(name, "next") for name in follow_ups]
    return Completion(settlement=Hold(held), publish=sent, closes=Closing(chord_id, token), **fields)


class Joining:
    """``finish``: chords, others, ``Hold``."""

    @asynchronous
    async def test_a_completion_joins_its_chord(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(2)])
        a, b = await _lent(broker, "a", "b")
        verdicts = await _finish(harness, broker, _ended(a, part(0)))
        assert verdicts == [DONE], "finish: joins and settles while the chord is incomplete"
        assert not await _is_leased(broker, a), "finish: joins and settles while the chord is incomplete"
        assert list(await store.join([part(1)], token="t")) == ["c"], "finish: joins, as the store does"
        assert await _members(store, "t") == [value(0), value(1)], "finish: joins, as the store does"
        assert await _finish(harness, broker, _ended(b, part(1))) == [DONE], "finish: another one holds its token"
        assert not await _is_leased(broker, b), "finish: another one holds its token"

    @asynchronous
    async def test_the_last_member_completes_its_chord(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(2)])
        (last,) = await _lent(broker, "a")
        await store.join([part(0)], token="t")
        ended = _ended(last, part(1), publish=[message("after", "next")], others=[record("other")])
        assert await _finish(harness, broker, ended) == [COMPLETES], "finish: COMPLETES when the chord is complete now"
        assert await _is_leased(broker, last), "finish: what completes a chord is not settled"
        assert await _stored(store, "a", "other") == ["a", "other"], "finish: what completes a chord is written"
        assert ids(await take(broker, "next")) == ["after"], "finish: what completes a chord is written"
        assert list(await store.join([part(1)], token="t")) == [], "finish: takes the chord's token"
        assert await _members(store, last.token) == [value(0), value(1)], "finish: the delivery's token is the chord's"
        assert await _finish(harness, broker, _closing(last, last.token, "body")) == [DONE], "finish: closes a chord"
        assert await _is_leased(broker, last), "Hold: the delivery stays leased"
        assert ids(await take(broker, "next")) == ["body"], "finish: publishes the body"
        assert await _members(store, last.token) is None, "finish: a closed chord is done"
        assert list(await broker.settle([Accept(last)])) == [], "Hold: the delivery stays leased"

    @asynchronous
    async def test_a_chord_is_closed_with_its_last_member(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(1)])
        a, late = await _lent(broker, "a", "late")
        assert await _finish(harness, broker, _ended(a, part(0))) == [COMPLETES]
        assert await _finish(harness, broker, _ended(a, part(0))) == [COMPLETES], "finish: told again, the same again"
        done = Completion(settlement=Accept(a), publish=[message("body", "next")], closes=Closing("c", a.token))
        assert await _finish(harness, broker, done) == [DONE], "finish: publishes, closes and settles in one step"
        assert not await _is_leased(broker, a), "finish: publishes, closes and settles in one step"
        assert await _finish(harness, broker, _ended(late, part(1))) == [DONE], "finish: late members are dropped"
        assert not await _is_leased(broker, late), "finish: late members are dropped"
        assert ids(await take(broker, "next")) == ["body"], "finish: publishes the body once"

    @asynchronous
    async def test_the_last_of_a_call_completes_the_chord(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(2, "x"), chord(3, "y"), chord(9, "z")])
        lent = await _lent(broker, "a", "b", "c", "d", "e", "f")
        gone = lent[5]
        await broker.settle([Accept(gone)])
        verdicts = await _finish(
            harness,
            broker,
            _ended(lent[0], part(0, "x"), part(0, "y")),
            _ended(lent[1], part(1, "x")),
            _ended(lent[2], part(0, "z")),
            _ended(lent[3], part(1, "y")),
            _ended(lent[4], part(2, "y"), part(1, "z")),
            _ended(gone, part(5, "x"), part(5, "y")),
        )
        assert verdicts == [DONE, COMPLETES, DONE, DONE, COMPLETES, FENCED], (
            "finish: of those that join a chord the last one completes it"
        )
        held = [await _is_leased(broker, each) for each in lent]
        assert held == [False, True, False, False, True, False], "finish: only what completes is not settled"
        assert await _members(store, lent[1].token, "x") == [value(0), value(1)]
        assert await _members(store, lent[4].token, "y") == [value(0), value(1), value(2)]
        assert await _members(store, lent[4].token, "z") is None, "finish: takes the tokens of complete chords only"

    @asynchronous
    async def test_the_last_of_a_call_completes_it_whoever_was_before(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(1)])
        a, b = await _lent(broker, "a", "b")
        verdicts = await _finish(harness, broker, _ended(a, part(0)), _ended(b, part(0), part(1)))
        assert verdicts == [DONE, COMPLETES], "finish: the last one, though the chord was complete before"
        assert await _members(store, b.token) == [value(0), value(1)]

    @asynchronous
    async def test_a_thousand_members_in_one_call(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(1000)])
        names = [f"id-{number}" for number in range(1000)]
        lent = await _lent(broker, *names)
        verdicts = await _finish(harness, broker, *(_ended(each, part(index)) for index, each in enumerate(lent)))
        assert verdicts == [DONE] * 999 + [COMPLETES], "finish: any number of members"
        assert await _members(store, lent[-1].token) == [value(index) for index in range(1000)], "finish: all of them"
        assert (await broker.depth(["q"]))["q"].leased == 1, "finish: settles all but the last"
        assert None not in await store.get(names), "finish: stores all"

    @pytest.mark.parametrize("way", ["release", "dead"])
    @asynchronous
    async def test_any_settlement_may_join(self, harness: Harness, way: str) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(2)])
        a, b = await _lent(broker, "a", "b")
        ways: Sequence[Settlement] = (
            [Release(a), Release(b)]
            if way == "release"
            else [DeadLetter(delivery=each, reason=DeadReason.FAILED) for each in (a, b)]
        )
        ended = [Completion(settlement=each, parts=[part(index)]) for index, each in enumerate(ways)]
        assert await _finish(harness, broker, *ended) == [DONE, COMPLETES]
        assert not await _is_leased(broker, a), "finish: settles any way"
        assert await _is_leased(broker, b), "finish: what completes is not settled, however it ends"

    # -- fencing ----------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_a_fenced_one_joins_nothing(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(2), chord(1, "x")])
        a, b = await _lent(broker, "a", "b")
        await store.join([part(0, "x")], token=b.token)
        await broker.settle([Accept(a)])
        fenced = _ended(a, part(0), others=[record("other")], opens=[chord(1, "opened")])
        closing = _ended(a, closes=Closing("x", b.token))
        assert await _finish(harness, broker, fenced, closing) == [FENCED, FENCED]
        assert await _stored(store, "a", "other") == [], "finish: a fenced one writes nothing"
        assert await _members(store, b.token, "x") == [value(0)], "finish: a fenced one closes nothing"
        assert list(await store.join([part(0, "opened"), part(1)], token="t")) == [], "finish: nor opens, nor joins"

    @asynchronous
    async def test_who_lost_the_chord_writes_nothing(self, harness: Harness) -> None:
        broker, store = await _servers(harness, chord_token=harness.lease)
        await store.open_chords([chord(1)])
        (a,) = await _lent(broker, "a")
        assert await _finish(harness, broker, _ended(a, part(0))) == [COMPLETES]
        await store.forget(["a"])
        await harness.lapse(harness.lease * 1.2)
        assert list(await store.join([part(0)], token="t")) == ["c"], "join: takes over when the time is over"
        fields: dict[str, Any] = {
            "others": [record("other")],
            "opens": [chord(1, "opened")],
            "parts": [part(0, "opened"), part(0, "around")],
        }
        lost = _closing(a, a.token, "body", result=record("a"), **fields)
        ended = _ended(a, *fields["parts"], publish=lost.publish, closes=lost.closes)
        assert await _finish(harness, broker, lost, ended) == [FENCED, FENCED], "finish: the closing token was lost"
        assert await _stored(store, "a", "other") == [], "finish: nothing at all is written then"
        assert await take(broker, "next") == [], "finish: nothing at all is written then"
        assert await _is_leased(broker, a), "finish: nor settled"
        await store.open_chords([chord(1, "around")])
        joined = await store.join([part(1, "opened"), part(None, "around")], token="t")
        assert list(joined) == ["around"], "finish: opens and joins nothing then"
        assert await _members(store, "t", "around") == [value(None)], "finish: joins nothing then"
        assert await _members(store, "t") == [value(0)], "finish: leaves the rightful holder alone"

    @asynchronous
    async def test_a_chord_is_closed_once(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(1)])
        (a,) = await _lent(broker, "a")
        assert await _finish(harness, broker, _ended(a, part(0))) == [COMPLETES]
        twice = [_closing(a, a.token, "first"), _closing(a, a.token, "second")]
        assert await _finish(harness, broker, *twice) == [DONE, FENCED], "finish: closes once"
        assert await _finish(harness, broker, *twice) == [FENCED, FENCED], "finish: closes once"
        assert ids(await take(broker, "next")) == ["first"], "finish: sends one body"

    @asynchronous
    async def test_a_token_is_free_when_its_delivery_is_settled(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(1, "x"), chord(1, "y")])
        a, b = await _lent(broker, "a", "b")
        assert list(await store.join([part(0, "x")], token=a.token)) == ["x"]
        assert list(await store.join([part(0, "y")], token="a name")) == ["y"]
        assert await _finish(harness, broker, _ended(b, part(0, "x"), part(0, "y"))) == [DONE], (
            "join: somebody holds it"
        )
        assert list(await store.join([part(0, "x")], token="t")) == [], "join: somebody holds it"
        await broker.settle([Accept(a)])
        assert list(await store.join([part(0, "x"), part(0, "y")], token="t")) == ["x"], (
            "join: takes over as soon as the delivery of the token is settled; one of no delivery goes by its time"
        )

    @asynchronous
    async def test_a_token_is_free_when_its_delivery_is_restored(self, harness: Harness) -> None:
        broker, store = await _servers(harness, lease=harness.lease, chord_token=harness.lease * 100)
        await store.open_chords([chord(1)])
        (old,) = await _lent(broker, "a")
        assert await _finish(harness, broker, _ended(old, part(0))) == [COMPLETES]
        await harness.lapse(harness.lease * 1.2)
        assert list(await store.join([part(0)], token="t")) == [], "join: its delivery is not restored yet"
        await broker.maintain()
        new = await only(broker)
        ended = _ended(new, part(0), others=[record("b")])
        assert await _finish(harness, broker, ended) == [COMPLETES], "finish: takes over from a lease that is lost"
        assert await _finish(harness, broker, _closing(old, old.token, "wrong")) == [FENCED]
        assert await _finish(harness, broker, _closing(new, old.token, "wrong")) == [FENCED]
        assert await _members(store, new.token) == [value(0)]
        assert await _finish(harness, broker, _closing(new, new.token, "right")) == [DONE]
        assert ids(await take(broker, "next")) == ["right"], "finish: sends one body"

    @asynchronous
    async def test_one_that_cannot_be_encoded_joins_nothing(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(2)])
        a, b = await _lent(broker, "a", "b")
        bad = _ended(a, part(0), publish=[message("bad", headers={"x": object()})], opens=[chord(2)])
        verdicts = await _finish(harness, broker, _ended(b, part(1)), bad)
        assert verdicts == [DONE, STEPWISE], "finish: one does not disturb the others"
        assert await _is_leased(broker, a), "finish: stepwise means that nothing was written"
        assert list(await store.join([part(2)], token="t")) == ["c"]
        assert await _members(store, "t") == [value(1), value(2)], "finish: stepwise means that nothing was written"

    # -- others, chords of follow-ups, chords in chords -------------------------------------------------------------

    @asynchronous
    async def test_others_are_stored_as_results_are(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        reader = harness.reader()
        await store.put([record("good", "SUCCESS", 1)])
        (a,) = await _lent(broker, "a")
        others = [record("good", "STARTED"), record("b", "FAILURE"), record("b", "REVOKED")]
        waiting = asyncio.ensure_future(asyncio.to_thread(reader.wait, ["b"], timeout=10.0))
        await harness.elapse(0.1)
        await asyncio.sleep(0.05)
        assert await _finish(harness, broker, _ended(a, others=others)) == [DONE]
        async with asyncio.timeout(harness.late * 3):
            assert await waiting == "b", "finish: a record of another task wakes its reader"
        expected = [record("a").body, record("good", "SUCCESS", 1).body, record("b", "REVOKED").body]
        assert list(await store.get(["a", "good", "b"])) == expected, "finish: others in order, SUCCESS stays"
        reader.close()

    @asynchronous
    async def test_a_completion_opens_chords(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        a, b = await _lent(broker, "a", "b")
        await store.open_chords([chord(1)])
        await store.join([part(9)], token="old")
        opens = [chord(2, shape=b"shape"), chord(1, "x")]
        sent = [message("member", "next")]
        assert await _finish(harness, broker, _ended(a, opens=opens, publish=sent)) == [DONE]
        assert await _finish(harness, broker, _ended(b, part(0), part(0, "x"))) == [COMPLETES]
        assert await _members(store, b.token, "x") == [value(0)], "finish: opens any number"
        assert list(await store.join([part(1)], token="t")) == ["c"], "finish: opens anew what was there"
        found = await store.gather("c", token="t")
        assert found is not None
        assert (list(found.parts), found.body, found.shape) == ([value(0), value(1)], BODY, b"shape")

    @asynchronous
    async def test_a_chord_is_opened_before_it_is_joined(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        a, b, c = await _lent(broker, "a", "b", "c")
        opening = _ended(a, part(0), opens=[chord(3)])
        assert await _finish(harness, broker, opening, _ended(b, part(1))) == [DONE, DONE], "finish: opens, then joins"
        assert await _finish(harness, broker, _ended(c, part(2))) == [COMPLETES], "finish: opens, then joins"
        assert await _members(store, c.token) == [value(0), value(1), value(2)]

    @asynchronous
    async def test_a_chord_within_a_chord(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        await store.open_chords([chord(1, "inner"), chord(1, "outer")])
        (a,) = await _lent(broker, "a")
        assert await _finish(harness, broker, _ended(a, part(0, "inner"))) == [COMPLETES]
        failed = _closing(a, a.token, chord_id="inner", parts=[part(0, "outer")], others=[record("body", "FAILURE")])
        assert await _finish(harness, broker, failed) == [COMPLETES], "finish: closes one and completes another"
        assert await _stored(store, "body") == ["body"]
        assert await _members(store, a.token, "inner") is None, "finish: closes one and completes another"
        assert await _members(store, a.token, "outer") == [value(0)], "finish: under the delivery's token"
        closing = _closing(a, a.token, "end", chord_id="outer")
        ended = Completion(settlement=Accept(a))
        assert await _finish(harness, broker, closing, ended) == [DONE, DONE], "Hold: may be ended in the same call"
        assert not await _is_leased(broker, a)
        assert ids(await take(broker, "next")) == ["end"]

    # -- hold -------------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_what_is_held_stays_leased(self, harness: Harness) -> None:
        broker, store = await _servers(harness)
        (a,) = await _lent(broker, "a")
        sent = [message("b", "next")]
        held = Completion(settlement=Hold(a), publish=sent, result=record("a"), others=[record("o")])
        assert await _finish(harness, broker, held) == [DONE], "Hold: writes"
        assert await _is_leased(broker, a), "Hold: the delivery stays leased"
        assert await _stored(store, "a", "o") == ["a", "o"], "Hold: writes"
        assert ids(await take(broker, "next")) == ["b"], "Hold: writes"
        await broker.settle([Accept(a)])
        await store.forget(["a", "o"])
        assert await _finish(harness, broker, held) == [FENCED], "Hold: only who holds the delivery may write"
        assert await _stored(store, "a", "o") == [], "Hold: only who holds the delivery may write"
        assert await take(broker, "next") == [], "Hold: only who holds the delivery may write"

    @asynchronous
    async def test_what_holds_nothing_completes_nothing(self, harness: Harness) -> None:
        wait = ample(harness)
        broker, store = await _servers(harness, chord_token=wait)
        await store.open_chords([chord(1)])
        held = Completion(settlement=Hold(), publish=[message("b", "next")], result=record("a"), parts=[part(0)])
        assert await _finish(harness, broker, held) == [DONE], "Hold: without a delivery completes nothing"
        assert await _stored(store, "a") == ["a"], "Hold: without a delivery anybody may write"
        assert ids(await take(broker, "next")) == ["b"], "Hold: without a delivery anybody may write"
        await harness.lapse(wait * 1.1)
        (found,) = await store.overdue(token="s")
        assert (found.chord, list(found.parts)) == ("c", [value(0)]), "Hold: the sweeper finds what is complete"
        wrong, right = _closing(None, "wrong", "wrong"), _closing(None, "s", "right")
        assert await _finish(harness, broker, wrong, right, right) == [FENCED, DONE, FENCED], (
            "Hold: the sweeper closes under its token"
        )
        assert ids(await take(broker, "next")) == ["right"], "Hold: the sweeper closes under its token"

    @asynchronous
    async def test_an_incomplete_chord_is_looked_at_again(self, harness: Harness) -> None:
        if not harness.leaps:
            harness.cannot("let minutes pass")
        broker, store = await _servers(harness, chord_token=5.0)
        await store.open_chords([chord(2)])
        await store.join([part(0)], token="t")
        await harness.elapse(5.5)
        assert list(await store.overdue(token="s")) == [], "overdue: not what is incomplete"
        await _finish(harness, broker, Completion(settlement=Hold(), parts=[part(1)]))
        await harness.elapse(CHORD_LOOK - 1)
        assert list(await store.overdue(token="s")) == [], "overdue: looks every CHORD_LOOK seconds"
        await harness.elapse(2)
        assert [each.chord for each in await store.overdue(token="s")] == ["c"], (
            "overdue: looks every CHORD_LOOK seconds"
        )
