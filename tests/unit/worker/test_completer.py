"""Publish, store, settle; through outages, without losing or repeating what is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from celeriac.app.starts import Starts
from celeriac.exceptions import OperationalError
from celeriac.model.ledger import Change, Lock
from celeriac.model.settle import StoredResult, Verdict
from celeriac.worker.completer import Completer
from tests.unit.worker.completing import Bench, Showing, on_bench, uncertain, unified
from tests.unit.worker.fakes import FakeBroker, FakeStore, UnifiedBroker, delivery, done, message, tokens, until


def test_the_order_that_loses_nothing() -> None:
    follow_up, one = message(), delivery()

    async def body(bench: Bench) -> None:
        await bench.write([done(one, publish=[follow_up], result=b"r")])

    bench = on_bench(body)
    assert bench.log == [
        ("extend", [one.token]),
        ("publish", [follow_up.id]),
        ("put", [b"r"]),
        ("settle", [one.token]),
    ]
    assert bench.settled == [one.token]


def test_many_are_written_in_one_step_each_and_in_order() -> None:
    many = [delivery() for _ in range(5)]

    async def body(bench: Bench) -> None:
        await bench.write([done(each, result=str(number).encode()) for number, each in enumerate(many)])

    bench = on_bench(body)
    assert bench.names() == ["extend", "put", "settle"]
    assert bench.of("put") == [[b"0", b"1", b"2", b"3", b"4"]]
    assert bench.of("settle") == [tokens(many)]


def test_a_lost_lease_forbids_every_write(caplog: pytest.LogCaptureFixture) -> None:
    mine, lost = delivery(), delivery(id="stolen")

    async def body(bench: Bench) -> None:
        bench.broker.gone.add(lost.token)
        await bench.write([done(lost, publish=[message()], result=b"bad"), done(mine, result=b"good")])

    bench = on_bench(body)
    assert bench.of("put") == [[b"good"]]
    assert bench.of("settle") == [[mine.token]]
    assert bench.of("publish") == []
    assert sorted(bench.settled) == sorted([mine.token, lost.token])
    assert "t[stolen] lost its lease" in caplog.text


@pytest.mark.parametrize("call", ["extend", "publish", "settle"])
def test_an_outage_of_the_broker_is_waited_for(call: str) -> None:
    follow_up, one = message(), delivery()

    async def body(bench: Bench) -> None:
        bench.broker.faults.away(call, 2)
        await bench.write([done(one, publish=[follow_up], result=b"r")])

    bench = on_bench(body)
    assert bench.of("publish") == [[follow_up.id]]
    assert bench.of("put") == [[b"r"]]
    assert bench.settled == [one.token]


def test_follow_ups_that_may_have_been_published_are_shown_as_redelivered() -> None:
    one = delivery()

    async def body(bench: Bench) -> None:
        bench.broker.faults.plan("publish", OperationalError("away"), uncertain())
        await bench.write([done(one, publish=[message(), message()], result=b"r")])

    broker = Showing()
    bench = on_bench(body, lambda: Bench(broker))
    assert broker.shown == [[None, None], [None, None], [True, True]]
    assert bench.settled == [one.token]


def test_follow_ups_are_not_published_at_every_try_while_the_store_is_away() -> None:
    follow_up, one = message(), delivery()

    async def body(bench: Bench) -> None:
        bench.store.faults.away("put", 3)
        await bench.write([done(one, publish=[follow_up], result=b"r")])

    bench = on_bench(body)
    assert bench.of("publish") == [[follow_up.id]]
    assert bench.of("put") == [[b"r"]]
    assert bench.of("extend") == [[one.token]] * 4  # the lease is checked before each try


def test_a_lease_lost_during_an_outage_forbids_the_rest() -> None:
    one = delivery()

    async def body(bench: Bench) -> None:
        bench.store.faults.away("put")
        running = asyncio.create_task(bench.completer.run())
        bench.completer.put([done(one, result=b"r")])
        await until(lambda: bench.of("extend"))
        bench.broker.gone.add(one.token)
        await bench.completer.drain()
        running.cancel()

    bench = on_bench(body)
    assert (bench.of("put"), bench.of("settle"), bench.settled) == ([], [], [one.token])


def test_nothing_is_reordered_by_an_outage() -> None:
    first, second, third = delivery(), delivery(), delivery()

    async def body(bench: Bench) -> None:
        bench.broker.faults.away("settle")
        running = asyncio.create_task(bench.completer.run())
        bench.completer.put([done(first)])
        await until(lambda: bench.of("extend"))
        bench.completer.put([done(second)])
        bench.completer.put([done(third)])
        await bench.completer.drain()
        running.cancel()

    assert on_bench(body).settled == tokens([first, second, third])


def test_what_was_started_under_a_lease_that_may_be_lost_is_not_told() -> None:
    """Somebody else has the task then, and may have stored its end: a STARTED behind it would stay for ever."""
    certain = [True]

    async def body(bench: Bench) -> None:
        bench.completer._certain = lambda: certain[0]
        bench.store.faults.away("put")
        certain[0] = False
        await bench.write([StoredResult("x", b"started", False), done(delivery(), result=b"result")])
        certain[0] = True
        await bench.write([StoredResult("y", b"started, too", False)])

    assert on_bench(body).of("put") == [[b"result"], [b"started, too"]]


def test_what_a_task_stores_while_its_start_is_written_is_written_again() -> None:
    starts = Starts()
    started, half = StoredResult("x", b"started", False), StoredResult("x", b"half done", False)

    async def body(bench: Bench) -> None:
        bench.completer._starts = starts
        starts.begin(started)
        put = bench.store.put

        async def meanwhile(records: Sequence[StoredResult]) -> None:
            await put(records)
            if list(records) == [started]:
                starts.overtake(half)

        bench.store.put = meanwhile  # type: ignore[method-assign]
        await bench.write([started, done(delivery(), result=b"result")])

    bench = on_bench(body)
    assert bench.of("put")[:2] == [[b"started"], [b"half done"]]


def test_started_records_come_before_results() -> None:
    one = delivery(id="x")
    started = StoredResult("x", b"started", False)

    async def body(bench: Bench) -> None:
        bench.store.faults.away("put")
        await bench.write([started, done(one, result=b"result")])

    assert on_bench(body).of("put") == [[b"started"], [b"result"]]


def test_back_pressure_and_drain() -> None:
    async def body(bench: Bench) -> None:
        bench.completer.put([done(delivery()), done(delivery())])
        assert (len(bench.completer), bench.completer.idle) == (2, False)
        await bench.write([])
        assert (len(bench.completer), bench.completer.idle) == (0, True)
        await asyncio.wait_for(bench.completer.drain(), 30)

    assert len(on_bench(body).settled) == 2


def test_drain_waits_for_what_is_being_written() -> None:
    async def body(bench: Bench) -> None:
        bench.broker.faults.away("extend")
        running = asyncio.create_task(bench.completer.run())
        bench.completer.put([done(delivery())])
        await until(lambda: not len(bench.completer))
        assert not bench.completer.idle
        assert bench.settled == []
        await bench.completer.drain()
        assert len(bench.settled) == 1
        running.cancel()

    on_bench(body)


def test_settled_before_the_run_there_is_nothing_to_settle_or_to_check() -> None:
    early, follow_up = delivery(), message()

    async def body(bench: Bench) -> None:
        bench.completer.early.add(early.token)
        await bench.write([done(early, publish=[follow_up], result=b"r")])

    bench = on_bench(body)
    assert bench.names() == ["publish", "put"]
    assert bench.settled == [early.token]


def test_without_results() -> None:
    async def main() -> list[str]:
        broker, settled = FakeBroker(), list[str]()
        completer = Completer(broker, None, lambda each: settled.extend(tokens(each)), rand=lambda: 0.0)  # type: ignore[arg-type]
        running = asyncio.create_task(completer.run())
        completer.put([StoredResult("x", b"started", False), done(delivery(token="a"))])
        await completer.drain()
        running.cancel()
        return settled

    assert asyncio.run(main()) == ["a"]


# -- one server ----------------------------------------------------------------------------------------------------


def test_one_server_one_step() -> None:
    one, two = delivery(), delivery()

    async def body(bench: Bench) -> None:
        await bench.write([done(one, publish=[message()], result=b"r"), done(two)])

    bench = on_bench(body, unified)
    assert bench.log == [("finish", tokens([one, two]))]
    assert bench.settled == tokens([one, two])


def test_two_servers_are_never_one_step() -> None:
    async def body(bench: Bench) -> None:
        await bench.write([done(delivery(), result=b"r")])

    assert "finish" not in on_bench(body, lambda: Bench(UnifiedBroker(server="a"), FakeStore(server="b"))).names()


def test_verdicts(caplog: pytest.LogCaptureFixture) -> None:
    good, fenced, left = delivery(id="g"), delivery(id="f"), delivery(id="l")

    async def body(bench: Bench) -> None:
        bench.broker.verdicts = {fenced.token: Verdict.FENCED, left.token: Verdict.STEPWISE}  # type: ignore[attr-defined]
        await bench.write([done(good, result=b"g"), done(fenced, result=b"f"), done(left, result=b"l")])

    bench = on_bench(body, unified)
    assert bench.log[1:] == [("extend", [left.token]), ("put", [b"l"]), ("settle", [left.token])]
    assert sorted(bench.settled) == sorted(tokens([good, fenced, left]))
    assert [record.getMessage() for record in caplog.records if "lost its lease" in record.getMessage()] == [
        "Task t[f] lost its lease, or an earlier try finished it: its outcome here is dropped"
    ]


def test_what_was_finished_is_not_finished_again_after_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    good, left = delivery(), delivery()

    async def body(bench: Bench) -> None:
        bench.broker.verdicts = {left.token: Verdict.STEPWISE}  # type: ignore[attr-defined]
        bench.store.faults.away("put", 2)
        await bench.write([done(good), done(left, result=b"l")])

    with caplog.at_level(logging.WARNING):
        bench = on_bench(body, unified)
    assert bench.of("finish") == [tokens([good, left])]
    assert bench.settled == tokens([good, left])
    assert "lost its lease" not in caplog.text


def test_an_early_one_among_others_on_one_server() -> None:
    early, late = delivery(), delivery()

    async def body(bench: Bench) -> None:
        bench.completer.early.add(early.token)
        await bench.write([done(early, result=b"e"), done(late, result=b"l")])
        bench.completer.early.add(early.token)
        await bench.write([done(early, result=b"alone")])

    bench = on_bench(body, unified)
    assert bench.log == [("finish", [late.token]), ("put", [b"e"]), ("put", [b"alone"])]
    assert bench.settled == tokens([late, early, early])


def test_an_outage_of_the_one_server() -> None:
    many = [delivery() for _ in range(3)]

    async def body(bench: Bench) -> None:
        bench.broker.faults.away("finish", 2)
        await bench.write([done(each) for each in many])

    bench = on_bench(body, unified)
    assert bench.log == [("finish", tokens(many))]
    assert bench.settled == tokens(many)


# -- chords --------------------------------------------------------------------------------------------------------


class Keeping(FakeBroker):
    """A broker with a ledger."""

    async def read_ledger(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        return [None] * len(keys)

    async def change_ledger(self, changes: Sequence[Change]) -> Sequence[bool]:
        self.log.append(("change", [(each.key, each.value) for each in changes]))
        return [True] * len(changes)


def test_a_lock_is_freed_together_with_the_note_of_where_its_task_waited() -> None:
    one = delivery(id="a")

    async def body(bench: Bench) -> None:
        await bench.write([replace(done(one, result=b"r"), frees=[Lock("lock", "a")])])

    bench = on_bench(body, lambda: Bench(Keeping()))
    assert bench.names() == ["extend", "put", "change", "settle"]
    assert bench.of("change") == [[("lock", None), ("lock", None), ("queued:a", None)]]
