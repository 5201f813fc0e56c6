"""Limits by compare-and-set: others are faster, the ledger is away, and what must not happen all the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from celeriac.beside.limits import Limits
from celeriac.model.limits import GO, Ask, Permission, Permit, Rate, Seats
from celeriac.model.message import Delivery
from tests.unit.beside.fakes import FakeLedger
from tests.unit.worker.fakes import delivery

ONE, RATE = Seats("key", 1), Rate("bucket", 10.0)


class Bench:
    def __init__(self) -> None:
        self.ledger, self.time = FakeLedger(), 1000.0
        self.limits = self.another()

    def another(self) -> Limits:
        return Limits(self.ledger, lease=30.0, now=lambda: self.time, rand=lambda: 0.5)

    def permit(self, *asks: Ask) -> list[Permit]:
        return list(asyncio.run(self.limits.permit(asks)))

    def sitters(self) -> list[Any]:
        value = self.ledger.values.get("seats:key")
        return [] if value is None else [each[0] for each in json.loads(value)]

    def write(self, key: str, value: Any) -> None:
        self.ledger.values[key] = json.dumps(value).encode()


def test_a_batch_is_one_reading_and_one_change() -> None:
    bench = Bench()
    permits = bench.permit(*(Ask(delivery(), RATE, Seats("key", 5)) for _ in range(4)))
    assert [each.permission for each in permits] == ["go", "later", "later", "later"]
    assert [each.due for each in permits[1:]] == [1010.0, 1020.0, 1030.0]
    assert bench.ledger.asked == 2


def test_who_gets_no_seat_writes_nothing() -> None:
    bench = Bench()
    bench.permit(Ask(delivery(id="a"), None, ONE))
    bench.ledger.asked = 0
    (late,) = bench.permit(Ask(delivery(id="b"), None, ONE))
    assert late == Permit(Permission.LATER, 1001.0, False)
    assert bench.ledger.asked == 1


def test_somebody_else_was_faster() -> None:
    bench = Bench()
    bench.ledger.before_change = [lambda: bench.write("seats:key", [["other", "t", 1030.0]])]
    (late,) = bench.permit(Ask(delivery(id="a"), None, ONE))
    assert late.permission is Permission.LATER
    assert bench.sitters() == ["other"]
    assert list(bench.ledger.values) == ["seats:key"], "no note of a seat that it has not"


def test_a_pace_that_is_written_is_not_taken_twice() -> None:
    bench = Bench()
    bench.ledger.before_change = [lambda: bench.write("seats:key", [["gone", "t", 999.0]])]
    assert bench.permit(Ask(delivery(id="a"), RATE, ONE)) == [GO]
    assert json.loads(bench.ledger.values["pace:bucket"])[0] == 1010.0, "one start"
    assert bench.sitters() == ["a"]


def test_a_seat_that_is_written_goes_when_the_pace_says_later() -> None:
    bench = Bench()
    bench.ledger.before_change = [lambda: bench.write("pace:bucket", [1005.0, 0.0])]
    (late,) = bench.permit(Ask(delivery(id="a"), RATE, ONE))
    assert (late.permission, late.due, late.reserved) == (Permission.LATER, 1005.0, True)
    assert bench.sitters() == []


def test_when_it_changes_all_the_time_they_ask_again_soon() -> None:
    bench = Bench()
    numbers = iter(range(100))
    bench.ledger.before_change = [lambda: bench.write("pace:bucket", [0.0, next(numbers)])] * 20
    (late,) = bench.permit(Ask(delivery(id="a"), RATE, ONE))
    assert (late.permission, late.reserved) == (Permission.LATER, False)
    assert 1000.0 < late.due < 1000.2
    assert bench.sitters() == [], "the seat that was written meanwhile is given up"


def test_marks_stay_as_they_are_without_a_seat() -> None:
    bench = Bench()
    bench.permit(Ask(delivery(id="a"), None, ONE))
    from celeriac.model.message import Marks

    (late,) = bench.permit(Ask(delivery(id="b", marks=Marks(reserved=True)), RATE, ONE))
    assert late.reserved, "it had a time of its own, and still may go before those in the line"


def _held(bench: Bench, name: str = "a") -> Delivery:
    held = delivery(id=name)
    assert bench.permit(Ask(held, None, ONE)) == [GO]
    return held


def test_seats_are_renewed_when_they_have_to_be() -> None:
    bench = Bench()
    held = _held(bench)
    bench.ledger.asked = 0
    asyncio.run(bench.limits.renewed([held, delivery()]))
    assert bench.ledger.asked == 0, "just taken"
    bench.time += 10.0
    asyncio.run(bench.limits.renewed([held]))
    assert json.loads(bench.ledger.values["seats:key"])[0][2] == 1040.0


def test_a_seat_that_was_lost_meanwhile_is_taken_again() -> None:
    bench = Bench()
    held = _held(bench)
    bench.time += 40.0
    bench.write("seats:key", [["other", "t", 1100.0]])
    asyncio.run(bench.limits.renewed([held]))
    assert bench.sitters() == ["other", "a"], "it runs all the same, so it counts"


def test_outages_of_the_ledger_stop_neither_leases_nor_ends() -> None:
    bench = Bench()
    held = _held(bench)
    bench.time += 10.0
    bench.ledger.failing = ["read"]
    asyncio.run(bench.limits.renewed([held]))
    bench.ledger.failing = ["change"]
    asyncio.run(bench.limits.settled([held]))
    assert bench.sitters() == ["a"], "its lease will end it"


def test_giving_up_needs_as_many_tries_as_it_needs() -> None:
    bench = Bench()
    held = _held(bench)
    others = iter(range(5))

    def other() -> None:
        row = [*json.loads(bench.ledger.values["seats:key"]), [f"o{next(others)}", "t", 1030.0]]
        bench.write("seats:key", row)

    bench.ledger.before_change = [other] * 5
    asyncio.run(bench.limits.settled([held]))
    assert bench.sitters() == ["o0", "o1", "o2", "o3", "o4"]
    assert "seat:" + held.token not in bench.ledger.values
