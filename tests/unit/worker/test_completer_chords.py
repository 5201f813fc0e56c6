"""Join, close, settle; through outages, without sending a body twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.exceptions import OperationalError
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.message import Delivery
from celeriac.model.settle import Completion, Hold, Verdict
from celeriac.worker.completer import Completer
from tests.unit.worker.completing import Bench, Showing, on_bench, uncertain
from tests.unit.worker.fakes import FakeBroker, FakeStore, UnifiedBroker, delivery, done, message, tokens, until


class ChordStore(FakeStore):
    """``completes``: chords that a join of the member with that id makes complete, under the token that joined."""

    def __init__(self, server: str = "store") -> None:
        super().__init__(server=server)
        self.completes: dict[str, list[str]] = {}
        self.tokens: dict[str, str] = {}

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        self.faults.meet("join")
        self.log.append(("join", [part.id for part in parts]))
        complete = [chord for part in parts for chord in self.completes.get(part.id, ())]
        self.tokens.update(dict.fromkeys(complete, token))
        return complete

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        self.faults.meet("open_chords")
        self.log.append(("open chords", [chord.id for chord in chords]))

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        self.faults.meet("gather")
        return Gathered(chord=chord, token=token, parts=()) if self.tokens.get(chord) == token else None

    async def close_chord(self, closing: Closing) -> bool:
        self.faults.meet("close_chord")
        self.log.append(("close chord", closing.chord))
        return self.tokens.pop(closing.chord, None) == closing.token


def chorded(*, unified: bool = False, broker: FakeBroker | None = None) -> Bench:
    """A bench whose completer concludes chords: each has a body of its own."""
    bench = Bench(UnifiedBroker(server="one"), ChordStore("one")) if unified else Bench(broker, ChordStore())

    def conclude(chord: Gathered, hold: Hold) -> Completion:
        body, closing = message(id=f"body of {chord.chord}"), Closing(chord.chord, chord.token)
        return Completion(settlement=hold, publish=[body], closes=closing)

    bench.completer = Completer(
        bench.broker, bench.store, bench._settled, rand=lambda: 0.0, join=conclude  # type: ignore[arg-type]
    )  # fmt: skip
    return bench


def joining(each: Delivery, *, chord: str = "g", **fields: Any) -> Completion:
    part = Part(chord=chord, id=each.message.id, index=0, value=b"value", body=b"body")
    return replace(done(each, **fields), parts=[part])


def test_a_member_joins_after_its_result_is_stored_and_before_it_is_settled() -> None:
    one = delivery(id="m")

    async def body(bench: Bench) -> None:
        await bench.write([joining(one, publish=[message(id="next")], result=b"r")])

    assert on_bench(body, chorded).log == [
        ("extend", [one.token]),
        ("publish", ["next"]),
        ("put", [b"r"]),
        ("join", ["m"]),
        ("settle", [one.token]),
    ]


def test_a_body_that_may_have_been_published_is_shown_as_redelivered() -> None:
    last, broker = delivery(id="last"), Showing()

    async def body(bench: Bench) -> None:
        bench.store.completes = {"last": ["g"]}  # type: ignore[attr-defined]
        bench.broker.faults.plan("publish", uncertain(), OperationalError("away"))
        await bench.write([joining(last, result=b"1")])

    bench = on_bench(body, lambda: chorded(broker=broker))
    assert broker.shown == [[None], [True], [True]]
    assert bench.of("publish") == [["body of g"]]


def test_chords_are_opened_before_their_members_are_sent() -> None:
    one = delivery()
    opening = replace(done(one, publish=[message(id="member")]), opens=[NewChord(id="inner", size=1)])

    async def body(bench: Bench) -> None:
        bench.broker.faults.away("publish")
        await bench.write([opening])

    bench = on_bench(body, chorded)
    assert bench.names() == ["extend", "open chords", "extend", "open chords", "publish", "settle"]


def test_a_chord_is_not_opened_anew_once_its_members_are_sent() -> None:
    """It would forget those that have joined."""
    one = delivery()
    opening = replace(done(one, publish=[message()], result=b"r"), opens=[NewChord(id="inner", size=1)])

    async def body(bench: Bench) -> None:
        bench.store.faults.away("put", 2)
        bench.broker.faults.plan("settle", OperationalError("away"))
        await bench.write([opening])

    bench = on_bench(body, chorded)
    assert bench.of("open chords") == [["inner"]]
    assert len(bench.of("publish")) == 1


def test_the_last_member_is_settled_when_the_body_is_sent() -> None:
    first, last = delivery(id="first"), delivery(id="last")

    async def body(bench: Bench) -> None:
        bench.store.completes = {"last": ["g"]}  # type: ignore[attr-defined]
        await bench.write([joining(first, result=b"1"), joining(last, result=b"2")])

    bench = on_bench(body, chorded)
    assert bench.log[2:] == [
        ("join", ["first"]),
        ("join", ["last"]),
        ("settle", [first.token]),
        ("publish", ["body of g"]),
        ("close chord", "g"),
        ("settle", [last.token]),
    ]
    assert bench.settled == tokens([first, last])


@pytest.mark.parametrize("call", ["extend", "publish", "settle", "put", "join", "gather", "close_chord"])
def test_an_outage_at_any_step_sends_nothing_twice_and_loses_nothing(call: str) -> None:
    first, last = delivery(id="first"), delivery(id="last")

    async def body(bench: Bench) -> None:
        bench.store.completes = {"last": ["g"]}  # type: ignore[attr-defined]
        where = bench.broker if call in ("extend", "publish", "settle") else bench.store
        where.faults.away(call, 2)
        await bench.write([joining(first, publish=[message(id="next")], result=b"1"), joining(last, result=b"2")])

    bench = on_bench(body, chorded)
    assert bench.of("publish") == [["next"], ["body of g"]]
    assert bench.of("close chord") == ["g"]
    assert sorted(bench.settled) == sorted(tokens([first, last]))
    assert len(bench.settled) == 2


def test_an_outage_in_the_second_of_two_joins_keeps_what_the_first_completed() -> None:
    first, second = delivery(id="first"), delivery(id="second")

    async def body(bench: Bench) -> None:
        bench.store.completes = {"first": ["g"]}  # type: ignore[attr-defined]
        bench.store.faults.plan("join", None, OperationalError("away"))
        await bench.write([joining(first), joining(second, chord="h")])

    bench = on_bench(body, chorded)
    assert bench.of("join") == [["first"], ["second"]]
    assert bench.of("publish") == [["body of g"]]
    assert sorted(bench.settled) == sorted(tokens([first, second]))


def test_a_member_that_lost_its_lease_does_not_join() -> None:
    mine, lost = delivery(id="mine"), delivery(id="lost")

    async def body(bench: Bench) -> None:
        bench.broker.gone.add(lost.token)
        await bench.write([joining(lost), joining(mine)])

    bench = on_bench(body, chorded)
    assert bench.of("join") == [["mine"]]
    assert len(bench.settled) == 2


def test_acknowledged_early_it_joins_under_a_token_of_its_own() -> None:
    early = delivery(id="m")

    async def body(bench: Bench) -> None:
        bench.store.completes = {"m": ["g"]}  # type: ignore[attr-defined]
        bench.completer.early.add(early.token)
        await bench.write([joining(early, result=b"r")])

    bench = on_bench(body, chorded)
    assert bench.names() == ["put", "join", "publish", "close chord"]
    assert bench.settled == [early.token]


def test_completes_on_one_server() -> None:
    """Everything of the member is written; its delivery stays leased until the body is sent."""
    first, last = delivery(id="first"), delivery(id="last")

    async def body(bench: Bench) -> None:
        bench.broker.verdicts = {last.token: Verdict.COMPLETES}  # type: ignore[attr-defined]
        bench.store.tokens["g"] = last.token  # type: ignore[attr-defined]
        running = asyncio.create_task(bench.completer.run())
        bench.completer.put([joining(first), joining(last)])
        await until(lambda: bench.of("finish"))
        bench.broker.verdicts = {}  # type: ignore[attr-defined]
        await bench.completer.drain()
        running.cancel()

    bench = on_bench(body, lambda: chorded(unified=True))
    # The second step holds the body and the closing, under the same lease.
    assert bench.log == [
        ("finish", tokens([first, last])),
        ("finish", [last.token]),
        ("settle", [last.token]),
    ]
    assert bench.settled == tokens([first, last])


def test_completes_but_fenced_when_its_body_is_to_be_sent() -> None:
    last = delivery(id="last")

    async def body(bench: Bench) -> None:
        bench.broker.verdicts = {last.token: Verdict.COMPLETES}  # type: ignore[attr-defined]
        running = asyncio.create_task(bench.completer.run())
        bench.completer.put([joining(last)])
        await bench.completer.drain()
        running.cancel()

    bench = on_bench(body, lambda: chorded(unified=True))
    assert bench.log == [("finish", [last.token]), ("settle", [last.token])]
    assert bench.settled == [last.token]


def test_verdicts_of_all_kinds_in_one_batch() -> None:
    plain, fenced, stepwise, last = (delivery(id=name) for name in ("plain", "fenced", "stepwise", "last"))

    async def body(bench: Bench) -> None:
        bench.broker.verdicts = {  # type: ignore[attr-defined]
            fenced.token: Verdict.FENCED,
            stepwise.token: Verdict.STEPWISE,
            last.token: Verdict.COMPLETES,
        }
        bench.store.faults.away("put")
        await bench.write([done(plain), joining(fenced), joining(stepwise, result=b"s"), joining(last)])

    bench = on_bench(body, lambda: chorded(unified=True))
    assert bench.of("finish") == [tokens([plain, fenced, stepwise, last])]
    assert bench.of("join") == [["stepwise"]]
    assert bench.of("settle") == [[stepwise.token], [last.token]]
    assert sorted(bench.settled) == sorted(tokens([plain, fenced, stepwise, last]))


def test_without_a_store_there_are_no_chords() -> None:
    async def main() -> list[str]:
        broker, settled = FakeBroker(), list[str]()
        completer = Completer(
            broker, None, lambda each: settled.extend(tokens(each)), rand=lambda: 0.0, join=lambda *_: done(delivery())
        )  # type: ignore[arg-type]
        assert completer.closer is None
        running = asyncio.create_task(completer.run())
        completer.put([joining(delivery(token="a"))])
        await completer.drain()
        running.cancel()
        return settled

    assert asyncio.run(main()) == ["a"]
